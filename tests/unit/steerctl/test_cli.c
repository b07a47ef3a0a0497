/*
 * steerctl against a scripted coordinator (the real HTTP edge, answers from a table), each command in a process of its own:
 * exit codes, what goes to stdout and what to stderr, and that every error ends with a next command.
 */
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/clock.h"
#include "base/file.h"
#include "coordinator/http.h"
#include "steerctl/cli.h"
#include "steerctl/cli_supervise.h"

#define ID "job_0000000000001"
#define ID2 "job_0000000000002"

static char root[64], state_dir[128];
static struct blob_store *store;
static struct http *http;
static struct err err;
static pthread_t reactor;
static bool reactor_stop;
static char out[1 << 16], errs[1 << 16];

/* What the scripted coordinator knows. */
static struct {
    char job_state[16];
    int posts, busy_first; /* the first so many POSTs get 503 */
    char keys[8][64];
    struct buf body;
    int polls, polls_to_end;
    int workers;
    bool cancelled;
} fake;

static void job_print(struct buf *b, const char *id)
{
    buf_printf(b,
               "{\"id\":\"%s\",\"name\":\"steer\",\"kind\":\"sft\",\"state\":\"%s\",\"version\":%d,"
               "\"created_at\":\"2026-01-01T00:00:00Z\","
               "\"failure\":%s,\"stages\":[{\"name\":\"data/"
               "chat\",\"state\":\"SUCCEEDED\",\"outputs\":{\"data\":[\"%064d\"]}},"
               "{\"name\":\"steer\",\"state\":\"%s\",\"phase\":\"train.0\",\"progress\":{"
               "\"fraction\":0.5,\"done\":50,\"total\":100,"
               "\"unit\":\"steps\",\"rate_per_s\":2,\"eta_s\":25}}],\"latest\":{\"train.loss\":{"
               "\"value\":2.5,\"step\":50}}}",
               id, fake.job_state, fake.polls,
               strcmp(fake.job_state, "FAILED") == 0 ? "{\"message\":\"no luck\"}" : "null", 1,
               fake.job_state);
}

/* A file of two lines, one a page; offsets are bytes. What is not the begin of a line comes back as
 * a line of its own, as from the real one. */
static void logs_ask(const struct api_request *q, struct api_response *r)
{
    static const char file[] = "t0\tw1\tone\nt1\tw1\ttwo \\u001b[31m\n";
    const char *offset = strstr(q->query, "offset="), *line, *end;

    assert_non_null(offset);
    line = file + strtoul(offset + 7, NULL, 10);
    end = strchr(line, '\n');
    if (end == NULL) {
        buf_printf(&r->body, "{\"items\":[],\"next_offset\":%zu}", (size_t)(line - file));
        return;
    }
    buf_printf(&r->body,
               "{\"items\":[{\"offset\":%zu,\"time\":\"%.2s\",\"worker\":\"w1\",\"text\":\"%.*s\"}],"
               "\"next_offset\":%zu}",
               (size_t)(line - file), line, (int)(end - line - 6), line + 6,
               (size_t)(end + 1 - file));
}

static void job_ask(const struct api_request *q, struct api_response *r)
{
    if (strstr(q->path, ID) == NULL) {
        r->status = 404;
        r->content_type = "application/problem+json";
        buf_str(&r->body, "{\"code\":\"not_found\",\"detail\":\"no such job\"}");
        return;
    }
    if (strstr(q->path, "/cancel") != NULL) {
        fake.cancelled = true;
        r->status = 202;
        snprintf(fake.job_state, sizeof fake.job_state, "CANCELLED");
    }
    if (strstr(q->path, "/logs") != NULL) {
        logs_ask(q, r);
        return;
    }
    fake.polls++;
    if (fake.polls_to_end > 0 && fake.polls >= fake.polls_to_end)
        snprintf(fake.job_state, sizeof fake.job_state, "SUCCEEDED");
    job_print(&r->body, ID);
}

static void submit_ask(const struct api_request *q, struct api_response *r)
{
    snprintf(fake.keys[fake.posts % 8], sizeof fake.keys[0], "%s", q->idempotency_key);
    buf_clear(&fake.body);
    buf_add(&fake.body, q->body, q->body_len);
    r->status = ++fake.posts <= fake.busy_first ? 503 : 201;
    if (strcmp(q->idempotency_key, "taken") == 0)
        r->status = 409;
    if (r->status == 201) {
        job_print(&r->body, ID);
    } else {
        r->content_type = "application/problem+json";
        buf_str(&r->body, "{\"code\":\"x\",\"detail\":\"another body came with this key\"}");
    }
}

static void answer(const struct api_request *q, struct api_response *r)
{
    r->status = 200;
    if (strcmp(q->path, "/v1/jobs") == 0 && strcmp(q->method, "POST") == 0) {
        submit_ask(q, r);
    } else if (strstr(q->query, "page_token=job_00000000000zz") != NULL) {
        buf_str(&r->body, "{\"items\":[{\"id\":\"job_00000000000zy\",\"name\":\"twin\","
                          "\"state\":\"PENDING\"}],\"next_page_token\":null}");
    } else if (strcmp(q->path, "/v1/jobs") == 0) {
        buf_str(&r->body, "{\"items\":[");
        job_print(&r->body, ID);
        buf_str(&r->body, ",{\"id\":\"" ID2 "\",\"name\":\"tw\\u001bin\",\"state\":\"PENDING\"},{"
                          "\"id\":\"job_00000000000zz\",\"name\":\"twin\","
                          "\"state\":\"PENDING\"}],\"next_page_token\":\"job_00000000000zz\"}");
    } else if (strncmp(q->path, "/v1/jobs/", 9) == 0) {
        job_ask(q, r);
    } else if (strcmp(q->path, "/v1/workers") == 0) {
        buf_str(&r->body, "{\"items\":[");
        for (int i = 0; i < fake.workers; i++)
            buf_printf(
                &r->body,
                "%s{\"id\":\"w%d\",\"name\":\"worker-%d\",\"state\":\"READY\",\"threads\":1}",
                i > 0 ? "," : "", i, i);
        buf_str(&r->body, "]}");
    } else if (strcmp(q->path, "/v1/info") == 0) {
        buf_printf(&r->body, "{\"state_dir\":\"%s\"}", state_dir);
    } else if (strcmp(q->path, "/v1/artifacts") == 0) {
        buf_str(&r->body, "{\"items\":[]}");
    } else {
        r->status = 404;
    }
}

static void *reactor_main(void *arg)
{
    (void)arg;
    while (!__atomic_load_n(&reactor_stop, __ATOMIC_ACQUIRE)) {
        struct pollfd p = {http_wait_fd(http), POLLIN, 0};
        struct api_request q;
        void *ticket;
        poll(&p, 1, 10);
        while (http_next(http, &q, &ticket)) {
            struct api_response r = API_RESPONSE_INIT;
            answer(&q, &r);
            http_answer(http, ticket, &r);
        }
    }
    return NULL;
}

static void write_text(const char *name, const char *text, mode_t mode)
{
    char path[256];

    snprintf(path, sizeof path, "%s/%s", root, name);
    assert_int_equal(file_write_atomic(path, text, strlen(text), &err), 0);
    assert_int_equal(chmod(path, mode), 0);
}

static const char spec_text[] =
    "apiVersion: steerlm/v1\nkind: annotate\nname: steer\n"
    "inputs: {model: \"sha256:0000000000000000000000000000000000000000000000000000000000000001\", "
    "data: \"data:d\"}\n"
    "data: {d: {files: [rows.jsonl], format: helpsteer}}\n";

static int setup(void **state)
{
    struct http_config config = {.listen = "127.0.0.1:0"};
    char text[256];

    (void)state;
    memset(&fake, 0, sizeof fake);
    snprintf(fake.job_state, sizeof fake.job_state, "RUNNING");
    snprintf(root, sizeof root, "/tmp/test_cli.XXXXXX");
    if (mkdtemp(root) == NULL)
        return 1;
    snprintf(state_dir, sizeof state_dir, "%s/state", root);
    snprintf(text, sizeof text, "%s/blobs", root);
    if (blob_open(text, &store, &err) != 0 || file_make_dirs(state_dir, &err) != 0)
        return 1;
    config.blobs = store;
    reactor_stop = false;
    if (http_start(&config, &http, &err) != 0)
        return 1;
    snprintf(text, sizeof text, "{\"http\":\"%s\",\"control\":\"tcp://127.0.0.1:9\"}",
             http_url(http));
    write_text("state/endpoint.json", text, 0644);
    write_text("job.yaml", spec_text, 0644);
    write_text("rows.jsonl", "{}\n", 0644);
    unsetenv("STEER_SERVER");
    unsetenv("STEER_TOKEN");
    setenv("STEER_DIR", state_dir, 1);
    setenv("XDG_CACHE_HOME", root, 1);
    return pthread_create(&reactor, NULL, reactor_main, NULL);
}

static int teardown(void **state)
{
    (void)state;
    __atomic_store_n(&reactor_stop, true, __ATOMIC_RELEASE);
    pthread_join(reactor, NULL);
    http_stop(&http);
    blob_close(store);
    buf_free(&fake.body);
    return file_remove_tree(root, &err);
}

static pid_t cli_spawn(const char *args)
{
    char out_path[128], err_path[128];
    pid_t pid;

    snprintf(out_path, sizeof out_path, "%s/out", root);
    snprintf(err_path, sizeof err_path, "%s/err", root);
    fflush(NULL);
    pid = fork();
    if (pid == 0) {
        char *copy = strdup(args), *argv[32] = {(char *)(uintptr_t) "steerctl"};
        int argc = 1, code;
        for (char *word = strtok(copy, " "); word != NULL && argc < 31; word = strtok(NULL, " "))
            argv[argc++] = word;
        if (freopen(out_path, "w", stdout) == NULL || freopen(err_path, "w", stderr) == NULL ||
            chdir(root) != 0)
            _exit(99);
        code = cli_run(argc, argv);
        fflush(NULL);
        _exit(code);
    }
    return pid;
}

static void slurp(const char *name, char *to, size_t cap)
{
    char path[128];
    FILE *f;
    size_t n = 0;

    snprintf(path, sizeof path, "%s/%s", root, name);
    f = fopen(path, "r");
    if (f != NULL) {
        n = fread(to, 1, cap - 1, f);
        fclose(f);
    }
    to[n] = '\0';
}

static int cli_finish(pid_t pid)
{
    int status = 0;

    assert_int_equal(waitpid(pid, &status, 0), pid);
    slurp("out", out, sizeof out);
    slurp("err", errs, sizeof errs);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

static int cli(const char *args)
{
    return cli_finish(cli_spawn(args));
}

static void test_wrong_usage_says_what_and_what_next(void **state)
{
    static const struct {
        const char *args, *text;
    } cases[] = {
        {"sbmit x", "did you mean \"submit\""},
        {"frobnicate", "no verb"},
        {"submit", "needs FILE"},
        {"submit a b", "does not take"},
        {"ls extra", "does not take"},
        {"ls --limt 3", "did you mean --limit"},
        {"ls --limit", "needs its N"},
        {"ls --limit x", "whole number"},
        {"ls --limit 0", "1..1000"},
        {"ls -o yaml", "table, json or name"},
        {"ls -n 1 -n 2", "given twice"},
        {"wait x --timeout -1", "whole number"},
        {"submit job.yaml --wait=1", "takes no value"},
        {"worker", "needs one of its verbs"},
        {"worker rm", "worker"},
        {"up --workers 1000", "0..64"},
        {"ls --state running", "no state"},
        {"completion fish", "bash"},
        {"status twin", "is 2 jobs"},
        {"status job_0", "jobs:"},
        {"-x", "no verb"},
    };

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        if (cli(cases[i].args) != CLI_USAGE)
            fail_msg("%s: no usage error: %s%s", cases[i].args, out, errs);
        if (strstr(errs, cases[i].text) == NULL)
            fail_msg("%s: \"%s\" is not in: %s", cases[i].args, cases[i].text, errs);
        assert_string_equal(out, "");
    }
    assert_int_equal(cli(""), CLI_USAGE);
}

static void test_help_covers_every_verb(void **state)
{
    char args[64];

    (void)state;
    assert_int_equal(cli("help"), CLI_OK);
    for (int i = 0; i < cli_verbs_n; i++)
        assert_non_null(strstr(out, cli_verbs[i].name));
    for (int i = 0; i < cli_verbs_n; i++) {
        snprintf(args, sizeof args, "help %s", cli_verbs[i].name);
        assert_int_equal(cli(args), CLI_OK);
        assert_non_null(strstr(out, "usage: steerctl"));
        snprintf(args, sizeof args, "%s --help", cli_verbs[i].name);
        assert_int_equal(cli(args), CLI_OK);
        assert_string_equal(errs, "");
    }
    assert_int_equal(cli("completion bash"), CLI_OK);
    for (int i = 0; i < cli_verbs_n; i++) {
        snprintf(args, sizeof args, "\"%s\")", cli_verbs[i].name);
        assert_non_null(strstr(out, args));
    }
    assert_int_equal(cli("version"), CLI_OK);
    assert_int_equal(cli("--version"), CLI_OK);
}

static void test_the_manual_knows_every_verb(void **state)
{
    struct buf b = BUF_INIT;
    char text[96];

    (void)state;
    assert_int_equal(file_read("docs/steerctl.1", 1 << 20, &b, &err), 0);
    for (int i = 0; i < cli_verbs_n; i++) {
        snprintf(text, sizeof text, ".It Ic %s", cli_verbs[i].name);
        if (strstr(b.data, text) == NULL)
            fail_msg("docs/steerctl.1 has no \"%s\"", text);
    }
    buf_free(&b);
}

static void test_nobody_there_is_7(void **state)
{
    static const char *const verbs[] = {
        "ls",     "status x",    "submit job.yaml",         "worker ls", "cancel x", "wait x",
        "logs x", "artifact ls", "artifact put rows.jsonl", "counters"};
    char args[128];

    (void)state;
    for (size_t i = 0; i < sizeof verbs / sizeof *verbs; i++) {
        snprintf(args, sizeof args, "%s --server 127.0.0.1:1", verbs[i]);
        assert_int_equal(cli(args), CLI_UNREACHABLE);
        assert_non_null(strstr(errs, "try: steerctl up"));
        snprintf(args, sizeof args, "%s --dir %s/empty", verbs[i], root);
        assert_int_equal(cli(args), CLI_UNREACHABLE);
        assert_non_null(strstr(errs, "try: steerctl up"));
    }
}

static void test_looking_works(void **state)
{
    (void)state;
    assert_int_equal(cli("ls"), CLI_OK);
    assert_non_null(strstr(out, ID));
    assert_null(strchr(out, '\033')); /* a name from elsewhere cannot move the cursor */
    assert_int_equal(cli("ls -o json"), CLI_OK);
    assert_int_equal(out[0], '{');
    assert_int_equal(cli("ls -o name"), CLI_OK);
    assert_int_equal(strncmp(out, ID "\n", strlen(ID) + 1), 0);
    assert_int_equal(cli("status steer"), CLI_OK);
    assert_non_null(strstr(out, "data/chat/data"));
    assert_int_equal(cli("status " ID " -o json"), CLI_OK);
    assert_int_equal(cli("status 0000000000001"), CLI_OK); /* the begin of an id, without job_ */
    assert_int_equal(cli("status nothing"), CLI_NOT_FOUND);
    assert_int_equal(cli("status job_000000000000x"), CLI_NOT_FOUND);
    assert_non_null(strstr(errs, "try: "));
    assert_int_equal(cli("logs steer"), CLI_OK);
    assert_non_null(strstr(out, "t0 w1 one\nt1 w1 two "));
    assert_null(strchr(out, '\033'));
    assert_int_equal(cli("logs steer -n 1"), CLI_OK);
    assert_string_equal(out, "t0 w1 one\n");
    snprintf(fake.job_state, sizeof fake.job_state, "SUCCEEDED");
    assert_int_equal(cli("logs steer -f"), CLI_OK);
    assert_int_equal(strncmp(out, "t0 w1 one\nt1 w1 two ", 20), 0);
    assert_ptr_equal(strchr(strchr(out, '\n') + 1, '\n') + 1, out + strlen(out)); /* two lines */
    snprintf(fake.job_state, sizeof fake.job_state, "RUNNING");
    assert_int_equal(cli("worker ls"), CLI_OK);
    assert_int_equal(cli("artifact ls"), CLI_OK);
    assert_int_equal(cli("artifact get steer/steer/model x"), CLI_NOT_FOUND);
    assert_int_equal(cli("artifact get steer/data/chat/data x"),
                     CLI_NOT_FOUND); /* named by the job, not in the store */
}

static void test_submit_uploads_and_prints_only_the_id(void **state)
{
    struct digest d;

    (void)state;
    assert_int_equal(cli("submit job.yaml --timeout abc"), CLI_USAGE);
    assert_int_equal(fake.posts, 0);
    assert_int_equal(cli("submit job.yaml --set seed=7"), CLI_OK);
    assert_string_equal(out, ID "\n");
    assert_non_null(strstr(errs, "steerctl watch " ID));
    digest_bytes("{}\n", 3, &d);
    assert_true(blob_has(store, d.hex));
    assert_non_null(strstr(fake.body.data, d.hex));
    assert_non_null(strstr(fake.body.data, "\"set\":[\"seed=7\"]"));
    assert_int_equal(strlen(fake.keys[0]), 32);
    assert_int_equal(cli("submit job.yaml --idempotency-key taken"), CLI_CONFLICT);
    assert_int_equal(cli("submit job.yaml -o json"), CLI_OK);
    assert_int_equal(out[0], '{');
    assert_string_not_equal(fake.keys[0], fake.keys[2]); /* a fresh one each time */
}

static void test_a_repeated_post_keeps_its_key(void **state)
{
    (void)state;
    fake.busy_first = 2;
    assert_int_equal(cli("submit job.yaml"), CLI_OK);
    assert_int_equal(fake.posts, 3);
    assert_string_equal(fake.keys[0], fake.keys[1]);
    assert_string_equal(fake.keys[0], fake.keys[2]);
}

static void test_a_bad_spec_sends_nothing(void **state)
{
    (void)state;
    write_text("bad.yaml", "apiVersion: steerlm/v1\nkind: annotate\nname: x\nsede: 3\n", 0644);
    assert_int_equal(cli("submit bad.yaml"), CLI_SPEC);
    assert_non_null(strstr(errs, "bad.yaml:4:"));
    assert_int_equal(cli("validate bad.yaml job.yaml"), CLI_SPEC);
    assert_string_equal(out, "job.yaml: ok\n");
    assert_int_equal(cli("submit absent.yaml"), CLI_NOT_FOUND);
    assert_int_equal(cli("submit job.yaml --set sede=3"), CLI_SPEC);
    write_text("gone.yaml",
               "apiVersion: steerlm/v1\nkind: annotate\nname: steer\ninputs: {model: "
               "\"file:nowhere\", data: \"data:d\"}\n"
               "data: {d: {files: [rows.jsonl], format: helpsteer}}\n",
               0644);
    assert_int_equal(cli("submit gone.yaml"), CLI_SPEC);
    assert_non_null(strstr(errs, "nowhere"));
    assert_int_equal(fake.posts, 0);
    assert_int_equal(cli("plan job.yaml"), CLI_OK);
    assert_int_equal(cli("plan job.yaml -o json"), CLI_OK);
}

static void test_waiting_tells_how_it_ended(void **state)
{
    static const struct {
        const char *state;
        int code;
    } cases[] = {{"SUCCEEDED", CLI_OK},
                 {"FAILED", CLI_FAILED},
                 {"CANCELLED", CLI_CANCELLED},
                 {"SKIPPED", CLI_SKIPPED}};

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        snprintf(fake.job_state, sizeof fake.job_state, "%s", cases[i].state);
        assert_int_equal(cli("wait steer"), cases[i].code);
        assert_int_equal(cli("submit job.yaml --wait"), cases[i].code);
        assert_int_equal(cli("watch steer"), cases[i].code);
    }
    snprintf(fake.job_state, sizeof fake.job_state, "RUNNING");
    assert_int_equal(cli("wait steer --timeout 1"), CLI_TIMEOUT);
    assert_int_equal(cli("wait steer --timeout 0"), CLI_TIMEOUT);
    snprintf(fake.job_state, sizeof fake.job_state, "SUCCEEDED");
    assert_int_equal(cli("wait steer --timeout 0"), CLI_OK); /* it is looked at once */
    snprintf(fake.job_state, sizeof fake.job_state, "RUNNING");
    fake.polls = 0;
    fake.polls_to_end = 4;
    assert_int_equal(cli("submit job.yaml --follow"), CLI_OK);
    assert_string_equal(out, ID "\n");
    assert_non_null(strstr(errs, "loss 2.5000"));
    assert_null(strchr(errs, '\033')); /* no terminal: no colour, no cursor */
}

static void test_ctrl_c_detaches(void **state)
{
    pid_t pid = cli_spawn("watch steer");

    (void)state;
    for (int i = 0; i < 1500 && fake.polls < 2; i++)
        clock_sleep_ms(20);
    kill(pid, SIGINT);
    assert_int_equal(cli_finish(pid), CLI_DETACHED);
    assert_non_null(strstr(errs, "steerctl watch " ID));
    assert_non_null(strstr(errs, "steerctl cancel " ID));
    assert_false(fake.cancelled);
    assert_int_equal(cli("cancel steer nothing"), CLI_NOT_FOUND);
    assert_true(fake.cancelled);
    assert_non_null(strstr(out, ID " CANCELLED"));
}

static void test_a_coordinator_that_comes_back_is_found(void **state)
{
    struct http_config config = {.listen = "127.0.0.1:0", .blobs = store};
    char text[256];
    pid_t pid = cli_spawn("watch steer");

    (void)state;
    for (int i = 0; i < 1500 && fake.polls < 2; i++)
        clock_sleep_ms(20);
    __atomic_store_n(&reactor_stop, true, __ATOMIC_RELEASE);
    pthread_join(reactor, NULL);
    http_stop(&http);
    clock_sleep_ms(300);
    reactor_stop = false;
    assert_int_equal(http_start(&config, &http, &err), 0); /* on another port */
    snprintf(text, sizeof text, "{\"http\":\"%s\"}", http_url(http));
    write_text("state/endpoint.json", text, 0644);
    fake.polls_to_end = fake.polls + 2;
    assert_int_equal(pthread_create(&reactor, NULL, reactor_main, NULL), 0);
    assert_int_equal(cli_finish(pid), CLI_OK);
    assert_non_null(strstr(errs, "does not answer; waiting"));
}

/* ---- up and down, with stand-in daemons ------------------------------------------------------ */

static int pid_of(const char *name)
{
    char path[256], *at;
    struct buf b = BUF_INIT;
    int pid = 0;

    snprintf(path, sizeof path, "%s/supervisor.json", state_dir);
    if (file_read(path, 65536, &b, &err) == 0 && (at = strstr(b.data, name)) != NULL &&
        (at = strstr(at, "\"pid\":")) != NULL)
        pid = atoi(at + 6);
    buf_free(&b);
    return pid;
}

static void daemons_write(void)
{
    char text[512];

    snprintf(text, sizeof text, "%s/bin", root);
    assert_int_equal(file_make_dirs(text, &err), 0);
    setenv("STEER_BIN_DIR", text, 1);
    snprintf(text, sizeof text,
             "#!/bin/sh\necho coordinator $@\necho '{\"http\":\"%s\"}' > $2/endpoint.json\nexec "
             "sleep 100\n",
             http_url(http));
    write_text("bin/steer-coordinator", text, 0755);
    write_text("bin/steer-worker", "#!/bin/sh\necho worker $@\nexec sleep 100\n", 0755);
}

static void test_up_keeps_things_up_and_down_stops_them(void **state)
{
    int supervisor, coordinator, worker, again = 0;

    (void)state;
    daemons_write();
    fake.workers = 2;
    assert_int_equal(cli("down"), CLI_OK);
    assert_int_equal(cli("up --workers 2 --threads 3 --http 0"), CLI_OK);
    assert_non_null(strstr(out, "http://127.0.0.1:"));
    assert_int_equal(cli("up"), CLI_OK);
    assert_non_null(strstr(errs, "already up"));
    for (int i = 0; i < 1500 && (pid_of("coordinator") == 0 || pid_of("worker-1") == 0); i++)
        clock_sleep_ms(20); /* the stand-in answers before it was started */
    supervisor = (int)supervise_pid(state_dir);
    coordinator = pid_of("coordinator");
    worker = pid_of("worker-1");
    assert_true(supervisor > 0 && coordinator > 0 && worker > 0);
    assert_int_equal(kill(worker, SIGKILL), 0);
    for (int i = 0; i < 1500 && (again == 0 || again == worker); i++) {
        clock_sleep_ms(20);
        again = pid_of("worker-1");
    }
    assert_true(again > 0 && again != worker);
    assert_int_equal(cli("down"), CLI_OK);
    assert_string_equal(out, "stopped\n");
    assert_int_equal(supervise_pid(state_dir), 0);
    assert_int_equal(kill(coordinator, 0), -1);
    assert_int_equal(kill(again, 0), -1);
    slurp("state/logs/worker-1.log", out, sizeof out);
    assert_non_null(strstr(out, "--threads 3 --name worker-1"));
    assert_non_null(strstr(out, "--coordinator-dir"));
}

static void test_up_that_fails_shows_the_log(void **state)
{
    (void)state;
    daemons_write();
    write_text("bin/steer-worker", "#!/bin/sh\necho no such luck\nexit 3\n", 0755);
    fake.workers = 0;
    assert_int_equal(cli("up --workers 1 --http 0"), CLI_UNEXPECTED);
    assert_non_null(strstr(errs, "no such luck"));
    assert_non_null(strstr(errs, "worker-1 does not stay up"));
    assert_int_equal(cli("down"), CLI_OK);
    unsetenv("STEER_BIN_DIR");
    setenv("PATH", "/usr/bin:/bin", 1);
    assert_int_equal(cli("up"), CLI_NOT_FOUND);
    assert_non_null(strstr(errs, "STEER_BIN_DIR"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_wrong_usage_says_what_and_what_next, setup, teardown),
        cmocka_unit_test_setup_teardown(test_help_covers_every_verb, setup, teardown),
        cmocka_unit_test_setup_teardown(test_the_manual_knows_every_verb, setup, teardown),
        cmocka_unit_test_setup_teardown(test_nobody_there_is_7, setup, teardown),
        cmocka_unit_test_setup_teardown(test_looking_works, setup, teardown),
        cmocka_unit_test_setup_teardown(test_submit_uploads_and_prints_only_the_id, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(test_a_repeated_post_keeps_its_key, setup, teardown),
        cmocka_unit_test_setup_teardown(test_a_bad_spec_sends_nothing, setup, teardown),
        cmocka_unit_test_setup_teardown(test_waiting_tells_how_it_ended, setup, teardown),
        cmocka_unit_test_setup_teardown(test_ctrl_c_detaches, setup, teardown),
        cmocka_unit_test_setup_teardown(test_a_coordinator_that_comes_back_is_found, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(test_up_keeps_things_up_and_down_stops_them, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(test_up_that_fails_shows_the_log, setup, teardown),
    };
    return cmocka_run_group_tests_name("cli", tests, NULL, NULL);
}
