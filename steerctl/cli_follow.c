/*
 * The live view of one job. It long-polls the job and draws one line per stage: on a terminal the lines are redrawn in place,
 * elsewhere a line is printed when a stage changes state, and at most every five seconds while it runs. A coordinator that
 * goes away and comes back (perhaps on another port) is waited for. Ctrl-C detaches: the job goes on.
 */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "base/clock.h"
#include "steerctl/cli.h"

#define LINE_MS 5000
#define GONE_MS 120000
#define SHOWN_MAX 80

struct shown { /* of a stage, last time */
    char state[24];
    uint64_t at_ms;
};

struct view {
    enum cli_view kind;
    bool tty, colour;
    int drawn; /* lines on the screen that belong to us */
    struct shown stage[SHOWN_MAX];
    char state[24];
};

int cli_state_exit(const char *state)
{
    if (strcmp(state, "SUCCEEDED") == 0)
        return CLI_OK;
    if (strcmp(state, "FAILED") == 0)
        return CLI_FAILED;
    if (strcmp(state, "CANCELLED") == 0)
        return CLI_CANCELLED;
    if (strcmp(state, "SKIPPED") == 0)
        return CLI_SKIPPED;
    return -1;
}

bool cli_is_prepare(const cJSON *stage)
{
    return strcmp(json_string_or(stage, "kind", ""), "prepare") == 0;
}

static void bar_fill(double fraction, char out[32])
{
    int n = (int)(fraction * 20.0 + 0.5);

    n = n < 0 ? 0 : n > 20 ? 20 : n;
    out[0] = '[';
    for (int i = 0; i < 20; i++)
        out[1 + i] = i < n ? '#' : '.';
    out[21] = ']';
    out[22] = '\0';
}

static const char *colour_of(const char *state)
{
    return strcmp(state, "SUCCEEDED") == 0                                     ? "\033[32m"
           : strcmp(state, "FAILED") == 0                                      ? "\033[31m"
           : strcmp(state, "RUNNING") == 0 || strcmp(state, "RECOVERING") == 0 ? "\033[36m"
                                                                               : "";
}

/* Series of a single job are "train.loss", of a pipeline's stage "STAGE/train.loss"; of a second fold "train.1.loss". */
static const cJSON *stage_loss(const cJSON *stage, const cJSON *latest)
{
    const char *name = json_string_or(stage, "name", ""),
               *phase = json_string_or(stage, "phase", "");
    const cJSON *found = NULL;
    char *keys[3];

    keys[0] = mem_printf("%s/%s.loss", name, strcmp(phase, "train.0") == 0 ? "train" : phase);
    keys[1] = mem_printf("%s.loss", strcmp(phase, "train.0") == 0 ? "train" : phase);
    keys[2] = mem_printf("%s/train.loss", name);
    for (int i = 0; i < 3; i++) {
        found = found != NULL ? found : json_get(latest, keys[i]);
        free(keys[i]);
    }
    return found;
}

/* What a running stage says of itself: bar, counts, rate, time left. */
static void progress_text(const cJSON *stage, const cJSON *latest, struct buf *b)
{
    const cJSON *p = json_get(stage, "progress"), *loss;
    double fraction = json_number_or(p, "fraction", -1.0),
           rate = json_number_or(p, "rate_per_s", -1.0);
    double eta = json_number_or(p, "eta_s", -1.0), done = json_number_or(p, "done", -1.0),
           total = json_number_or(p, "total", -1.0);
    const char *unit = json_string_or(p, "unit", ""),
               *phase = json_string_or(stage, "phase", json_string_or(p, "phase", "")),
               *reason = json_string_or(stage, "reason", NULL);
    char text[CLI_SHORT], safe[300];

    if (fraction >= 0.0) {
        bar_fill(fraction, text);
        buf_printf(b, " %s %3.0f%%", text, fraction * 100.0);
    }
    if (phase[0] != '\0')
        buf_printf(b, "  %s", phase);
    if (total > 0.0)
        buf_printf(b, " %.0f/%.0f %s", done, total, unit);
    if (rate > 0.0)
        buf_printf(b, rate < 10.0 ? "  %.2f/s" : "  %.0f/s", rate);
    if (eta >= 0.0) {
        cli_format_seconds(eta, text);
        buf_printf(b, "  eta %s", text);
    }
    loss = stage_loss(stage, latest);
    if (strncmp(phase, "train", 5) == 0 && loss != NULL)
        buf_printf(b, "  loss %.4f", json_number_or(loss, "value", 0.0));
    if (reason != NULL && reason[0] != '\0')
        buf_printf(b, "  %s", cli_safe(reason, safe, sizeof safe));
}

static void stage_line(const struct view *v, const cJSON *stage, const cJSON *latest, int width,
                       struct buf *b)
{
    const char *state = json_string_or(stage, "state", "?"),
               *reason = json_string_or(stage, "reason", NULL);
    char safe[300], took[CLI_SHORT];

    buf_printf(b, "  %-*.*s ", width, 40, json_string_or(stage, "name", "?"));
    buf_printf(b, "%s%-10s%s", v->colour ? colour_of(state) : "", state,
               v->colour && colour_of(state)[0] != '\0' ? "\033[0m" : "");
    if (json_bool_or(stage, "reused", false))
        buf_str(b, " (reused)");
    if (cli_state_exit(state) < 0 && strcmp(state, "PENDING") != 0)
        progress_text(stage, latest, b);
    else if (strcmp(state, "SUCCEEDED") == 0) {
        cli_format_between(json_string_or(stage, "started_at", NULL),
                           json_string_or(stage, "finished_at", NULL), took);
        buf_printf(b, " in %s", took);
    } else if (reason != NULL && reason[0] != '\0')
        buf_printf(b, " %s", cli_safe(reason, safe, sizeof safe));
}

static int names_width(const cJSON *stages)
{
    const cJSON *stage;
    int width = 8;

    cJSON_ArrayForEach(stage, stages)
    {
        int n = (int)strlen(json_string_or(stage, "name", ""));
        width = n > width ? n : width;
    }
    return width < 40 ? width : 40;
}

static int screen_width(void)
{
    struct winsize w;

    return ioctl(STDERR_FILENO, TIOCGWINSZ, &w) == 0 && w.ws_col > 20 ? w.ws_col : 100;
}

/* One screen line: cut to the width, not counting colour. */
static void line_put(const char *text, int width)
{
    int n = 0;

    while (*text != '\0') {
        if (*text == '\033') {
            size_t len = strcspn(text, "m") + 1;
            fwrite(text, 1, len, stderr);
            text += len;
            continue;
        }
        if (n < width - 1)
            fputc(*text, stderr);
        n++;
        text++;
    }
    fputs("\033[K\n", stderr);
}

static void draw_tty(struct view *v, const cJSON *job)
{
    const cJSON *stages = json_get(job, "stages"), *latest = json_get(job, "latest"), *stage;
    int width = names_width(stages), screen = screen_width(), lines = 0;
    struct buf b = BUF_INIT;
    char safe[200];

    if (v->drawn > 0)
        fprintf(stderr, "\033[%dA", v->drawn);
    buf_printf(&b, "%s  %s  %s", cli_safe(json_string_or(job, "name", ""), safe, sizeof safe),
               json_string_or(job, "id", ""), json_string_or(job, "state", ""));
    buf_printf(&b, "  %.0f worker(s)", json_number_or(json_get(job, "workers"), "active", 0.0));
    line_put(b.data, screen);
    lines++;
    for (int first = 1; first >= 0; first--)
        cJSON_ArrayForEach(stage, stages)
        {
            if (cli_is_prepare(stage) != first)
                continue;
            buf_clear(&b);
            stage_line(v, stage, latest, width, &b);
            line_put(b.data, screen);
            lines++;
        }
    for (int i = lines; i < v->drawn; i++)
        line_put("", screen);
    v->drawn = lines > v->drawn ? lines : v->drawn;
    buf_free(&b);
}

static void draw_lines(struct view *v, const cJSON *job)
{
    const cJSON *stages = json_get(job, "stages"), *latest = json_get(job, "latest"), *stage;
    int width = names_width(stages), i = 0;
    uint64_t now = clock_ms();
    struct buf b = BUF_INIT;

    cJSON_ArrayForEach(stage, stages)
    {
        const char *state = json_string_or(stage, "state", "?");
        struct shown *s = i < SHOWN_MAX ? &v->stage[i] : NULL;
        i++;
        if (s == NULL)
            break;
        if (strcmp(s->state, state) == 0 &&
            (cli_state_exit(state) >= 0 || strcmp(state, "PENDING") == 0 ||
             now - s->at_ms < LINE_MS))
            continue;
        if (s->state[0] == '\0' &&
            strcmp(state, "PENDING") == 0) { /* all stages wait at first: no news */
            snprintf(s->state, sizeof s->state, "%s", state);
            continue;
        }
        snprintf(s->state, sizeof s->state, "%s", state);
        s->at_ms = now;
        buf_clear(&b);
        stage_line(v, stage, latest, width, &b);
        cli_say("%s", b.data);
    }
    buf_free(&b);
}

static void view_draw(struct view *v, const cJSON *job)
{
    const char *state = json_string_or(job, "state", "?");

    if (v->kind == CLI_VIEW_QUIET)
        return;
    if (v->tty) {
        draw_tty(v, job);
        return;
    }
    if (strcmp(v->state, state) != 0) {
        cli_say("%s %s %s", json_string_or(job, "id", ""), json_string_or(job, "name", ""), state);
        snprintf(v->state, sizeof v->state, "%s", state);
    }
    draw_lines(v, job);
}

static int view_end(const cJSON *job, const char *id)
{
    const char *state = json_string_or(job, "state", "?");
    const cJSON *failure = json_get(job, "failure");
    int code = cli_state_exit(state);
    const char *hint = json_string_or(failure, "hint", NULL);
    char next[128];

    if (code == CLI_OK) {
        const cJSON *outputs = json_get(job, "outputs");
        cli_say("job %s succeeded", id);
        if (cJSON_GetArraySize(outputs) > 0)
            cli_say("  outputs: steerctl status %s; steerctl artifact get %s/STAGE/NAME DIR", id,
                    id);
        return code;
    }
    snprintf(next, sizeof next, code == CLI_FAILED ? "steerctl logs %s" : "steerctl status %s", id);
    if (code == CLI_FAILED)
        return cli_fail(
            code, hint != NULL && hint[0] != '\0' ? hint : next, "job %s failed: %s", id,
            json_string_or(failure, "message", json_string_or(job, "reason", "no reason given")));
    return cli_fail(code, next, "job %s: %s", id, state);
}

static int detached(const char *id)
{
    fprintf(
        stderr,
        "\ndetached; the job goes on.\n  back:   steerctl watch %s\n  stop:   steerctl cancel %s\n",
        id, id);
    return CLI_DETACHED;
}

static void interruptible_sleep(uint64_t ms)
{
    for (uint64_t slept = 0; slept < ms && !cli_interrupted; slept += 50)
        clock_sleep_ms(50);
}

/* Waits for a coordinator that does not answer. False: for too long. */
static bool reconnect(struct cli_client *cl, struct view *v, uint64_t *gone_since)
{
    uint64_t now = clock_ms();

    if (*gone_since == 0) {
        *gone_since = now;
        if (v->kind == CLI_VIEW_LIVE)
            cli_say("the coordinator does not answer; waiting for it");
        v->drawn = 0;
    }
    if (now - *gone_since > GONE_MS)
        return false;
    interruptible_sleep(500);
    (void)cli_rediscover(cl); /* it may have another port */
    return true;
}

int cli_watch(struct cli_client *cl, const char *id, enum cli_view kind, int64_t timeout_s)
{
    struct view v = {
        .kind = kind, .tty = cli_has_tty(STDERR_FILENO), .colour = cli_has_colour(STDERR_FILENO)};
    uint64_t start = clock_ms(), gone_since = 0;
    int64_t version = -1;
    int code = -1;

    cli_catch_interrupts();
    while (code < 0) {
        struct cli_reply r;
        uint64_t left = timeout_s < 0 ? UINT64_MAX : (uint64_t)timeout_s * 1000,
                 spent = clock_ms() - start;
        uint64_t wait_s = v.tty && kind == CLI_VIEW_LIVE ? 2 : 5;
        char path[160];
        if (cli_interrupted)
            return detached(id);
        if (spent >= left && version >= 0) /* it was asked at least once */
            return cli_fail(CLI_TIMEOUT, "the same command with a longer --timeout",
                            "job %s has not ended after %" PRId64 " s", id, timeout_s);
        if (spent >= left || left - spent < wait_s * 1000)
            wait_s = spent >= left ? 0 : (left - spent) / 1000;
        if (version < 0)
            snprintf(path, sizeof path, "/v1/jobs/%s", id);
        else
            snprintf(path, sizeof path, "/v1/jobs/%s?since=%" PRId64 "&wait=%" PRIu64 "s", id,
                     version, wait_s);
        if (!cli_call(cl, "GET", path, NULL, NULL, 20000, &r) || r.status == 503) {
            if (!cli_interrupted && (spent >= left || !reconnect(cl, &v, &gone_since)))
                code = cli_reply_fail(cl, &r, id);
        } else if (r.status == 200 && r.json != NULL) {
            gone_since = 0;
            version = json_int_or(r.json, "version", -1);
            view_draw(&v, r.json);
            if (cli_state_exit(json_string_or(r.json, "state", "")) >= 0)
                code = view_end(r.json, id);
            else
                interruptible_sleep(200); /* at most five pictures a second */
        } else if (r.status == 304) {
            gone_since = 0;
            interruptible_sleep(200); /* answered at once where the time is nearly up, or too many wait */
        } else {
            code = cli_reply_fail(cl, &r, id);
        }
        cli_reply_free(&r);
    }
    return code;
}
