/*
 * The table of verbs and everything made from it: the parser, the help pages, the completion.
 *
 * Options may stand anywhere behind the verb; "--" ends them; --name=value, --name value, -nvalue and -n value are the same.
 */
#include "steerctl/cli.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/suggest.h"
#include "jobs/spec_keys.h"

#define ASK (OPT_BIT(OPT_SERVER) | OPT_BIT(OPT_DIR) | OPT_BIT(OPT_OUTPUT))
#define DIR OPT_BIT(OPT_DIR)
#define OUT OPT_BIT(OPT_OUTPUT)

const struct cli_verb cli_verbs[] = {
    {"up", "", 0, 0, DIR | OUT | OPT_BIT(OPT_WORKERS) | OPT_BIT(OPT_THREADS) | OPT_BIT(OPT_HTTP),
     verb_up, "start a coordinator and workers on this machine", "steerctl up --workers 2", NULL},
    {"down", "", 0, 0, DIR, verb_down, "stop what `up` started; jobs go on at the next `up`",
     "steerctl down", NULL},
    {"submit", "FILE", 1, 1,
     ASK | OPT_BIT(OPT_SET) | OPT_BIT(OPT_FOLLOW) | OPT_BIT(OPT_WAIT) | OPT_BIT(OPT_KEY) |
         OPT_BIT(OPT_TIMEOUT),
     verb_submit, "check a spec, upload its files, start the job",
     "steerctl submit jobs/specs/demo.yaml --follow", "files"},
    {"validate", "FILE", 1, CLI_POS_MAX, OPT_BIT(OPT_SET), verb_validate,
     "check specs; sends nothing", "steerctl validate job.yaml", "files"},
    {"plan", "FILE", 1, 1,
     OUT | OPT_BIT(OPT_SET) | OPT_BIT(OPT_WORKERS) | OPT_BIT(OPT_THREADS) | OPT_BIT(OPT_MEASURED) |
         OPT_BIT(OPT_LINK) | OPT_BIT(OPT_LATENCY) | OPT_BIT(OPT_PLAIN),
     verb_plan,
     "show the stages of a spec and, with -o json, every key with its value; sends nothing. With "
     "--measured and --link: how long a training step takes on that many workers",
     "steerctl plan job.yaml --measured speeds.json --workers 8 --link 1Gb/s", "files"},
    {"ls", "", 0, 0, ASK | OPT_BIT(OPT_STATE) | OPT_BIT(OPT_LIMIT), verb_ls,
     "list jobs, newest first", "steerctl ls", NULL},
    {"status", "ID", 1, 1, ASK, verb_status,
     "one job: stages, progress, what it made or why it failed", "steerctl status chat-steering",
     "jobs"},
    {"watch", "ID", 1, 1, ASK | OPT_BIT(OPT_TIMEOUT), verb_watch,
     "follow a job live; Ctrl-C detaches, the job goes on", "steerctl watch chat-steering", "jobs"},
    {"wait", "ID", 1, 1, ASK | OPT_BIT(OPT_TIMEOUT), verb_wait,
     "until a job ends; the exit code says how", "steerctl wait job_01 --timeout 600", "jobs"},
    {"logs", "ID", 1, 1, ASK | OPT_BIT(OPT_FOLLOW) | OPT_BIT(OPT_LIMIT), verb_logs,
     "what its workers said", "steerctl logs job_01 -f", "jobs"},
    {"events", "ID", 1, 1, ASK | OPT_BIT(OPT_LIMIT), verb_events,
     "what happened to a job, in order", "steerctl events job_01", "jobs"},
    {"cancel", "ID...", 1, CLI_POS_MAX, ASK, verb_cancel, "stop jobs", "steerctl cancel job_01",
     "jobs"},
    {"pause", "ID...", 1, CLI_POS_MAX, ASK, verb_pause,
     "give the workers of jobs to others until they are resumed", "steerctl pause job_01", "jobs"},
    {"resume", "ID...", 1, CLI_POS_MAX, ASK, verb_resume, "let paused jobs go on",
     "steerctl resume job_01", "jobs"},
    {"retry", "ID...", 1, CLI_POS_MAX, ASK | OPT_BIT(OPT_FROM) | OPT_BIT(OPT_STAGE), verb_retry,
     "let failed or cancelled jobs go on from what they had finished",
     "steerctl retry job_01 --from 80", "jobs"},
    {"worker ls", "", 0, 0, ASK, verb_worker_ls, "list workers", "steerctl worker ls", NULL},
    {"worker release", "ID|NAME", 1, 1, ASK, verb_worker_release,
     "let a worker work again that was put in quarantine", "steerctl worker release worker-2",
     NULL},
    {"counters", "", 0, 0, ASK, verb_counters,
     "what the coordinator has counted since it started: losses, repairs, refusals",
     "steerctl counters", NULL},
    {"artifact ls", "", 0, 0, ASK, verb_artifact_ls, "list what jobs made", "steerctl artifact ls",
     NULL},
    {"artifact get", "DIGEST|JOB/STAGE/NAME[/N] PATH", 2, 2, ASK, verb_artifact_get,
     "load a model, data set or report to PATH, verified",
     "steerctl artifact get chat-steering/report/report ./report", NULL},
    {"artifact put", "PATH", 1, 1, ASK, verb_artifact_put,
     "upload a file or directory; prints its digest", "steerctl artifact put models/stories260K",
     "files"},
    {"data show", "FILE", 1, 1, OPT_BIT(OPT_SPEC) | OPT_BIT(OPT_SET) | OPT_BIT(OPT_ROWS),
     verb_data_show, "rows of a data file as tokens, what is learnt in [ ]",
     "steerctl data show data/topical-chat.jsonl.gz --spec jobs/specs/demo.yaml --rows 2", "files"},
    {"data check", "FILE", 1, 1, OPT_BIT(OPT_SPEC) | OPT_BIT(OPT_SET), verb_data_check,
     "what is wrong or odd in a data file, by line",
     "steerctl data check data/topical-chat.jsonl.gz --spec jobs/specs/demo.yaml", "files"},
    {"version", "", 0, 0, OUT, verb_version, "the version of this program", "steerctl version",
     NULL},
    {"completion", "bash", 0, 1, 0, cli_completion, "print a completion script",
     "eval \"$(steerctl completion bash)\"", NULL},
    {"help", "[VERB|spec]", 0, 2, 0, cli_help, "this list, one verb, or every key of a spec",
     "steerctl help submit", "verbs"},
};
const int cli_verbs_n = (int)(sizeof cli_verbs / sizeof *cli_verbs);

struct option_row {
    const char *word;
    char letter;
    const char *value;
    bool repeat;
    const char *doc;
};
static const struct option_row options[OPT_COUNT] = {
#define X(name, word, letter, value, repeat, doc) {word, letter, value, repeat, doc},
    CLI_OPTIONS(X)
#undef X
};

/* ---- help ------------------------------------------------------------------------------------ */

static void help_verb(const struct cli_verb *v, FILE *out)
{
    fprintf(out, "usage: steerctl %s%s%s%s\n  %s\n", v->name, v->args[0] != '\0' ? " " : "",
            v->args, v->options != 0 ? " [options]" : "", v->doc);
    for (int o = 0; o < OPT_COUNT; o++) {
        char left[64], letter[8] = "    ";
        if ((v->options & OPT_BIT(o)) == 0)
            continue;
        if (options[o].letter != 0)
            snprintf(letter, sizeof letter, "-%c, ", options[o].letter);
        snprintf(left, sizeof left, "%s--%s%s%s", letter, options[o].word,
                 options[o].value != NULL ? " " : "",
                 options[o].value != NULL ? options[o].value : "");
        fprintf(out, "  %-30s %s\n", left, options[o].doc);
    }
    fprintf(out, "example: %s\n", v->example);
}

static void help_all(FILE *out)
{
    fprintf(out, "steerctl: steerable language models from one YAML file, on the machines that you "
                 "have\n\n");
    for (int i = 0; i < cli_verbs_n; i++) {
        char left[96];
        snprintf(left, sizeof left, "%s %s", cli_verbs[i].name, cli_verbs[i].args);
        if (strlen(left) > 24)
            fprintf(out, "  %s\n  %-24s %s\n", left, "", cli_verbs[i].doc);
        else
            fprintf(out, "  %-24s %s\n", left, cli_verbs[i].doc);
    }
    fprintf(
        out,
        "\nA job is given by its id, by the begin of one, or by its name, where that is unique.\n"
        "Exit codes: 0 ok, 1 unexpected, 2 usage, 3 invalid spec, 4 not found, 5 conflict, 6 "
        "denied, 7 unreachable,\n"
        "8 wait timed out, 10 job failed, 11 job cancelled, 12 job skipped, 130 detached.\n"
        "More: steerctl help VERB, steerctl help spec\n");
}

static const struct cli_verb *verb_find(const char *first, const char *second, int *words)
{
    for (int i = 0; i < cli_verbs_n; i++) {
        const char *space = strchr(cli_verbs[i].name, ' ');
        size_t n = space != NULL ? (size_t)(space - cli_verbs[i].name) : strlen(cli_verbs[i].name);
        if (strlen(first) != n || strncmp(cli_verbs[i].name, first, n) != 0)
            continue;
        *words = 1;
        if (space == NULL)
            return &cli_verbs[i];
        *words = 2;
        if (second != NULL && strcmp(space + 1, second) == 0)
            return &cli_verbs[i];
    }
    return NULL;
}

static bool is_group(const char *word)
{
    return strcmp(word, "worker") == 0 || strcmp(word, "artifact") == 0 ||
           strcmp(word, "data") == 0;
}

static int verb_unknown(const char *first, const char *second)
{
    const char *names[64], *near;
    char word[128], next[96] = "steerctl help";
    int n = 0;

    if (is_group(first)) {
        snprintf(word, sizeof word, "%.60s%s%.60s", first, second != NULL ? " " : "",
                 second != NULL ? second : "");
        snprintf(next, sizeof next, "steerctl help %.60s", first);
        if (second == NULL || second[0] == '-')
            return cli_fail(CLI_USAGE, next, "%s needs one of its verbs", first);
    } else {
        snprintf(word, sizeof word, "%.60s", first);
    }
    for (int i = 0; i < cli_verbs_n && n < 64; i++)
        names[n++] = cli_verbs[i].name;
    near = suggest_nearest(word, names, (size_t)n);
    return cli_fail(CLI_USAGE, next, "there is no verb \"%s\"%s%s%s", word,
                    near != NULL ? "; did you mean \"" : "", near != NULL ? near : "",
                    near != NULL ? "\"?" : "");
}

int cli_help(struct cli *c)
{
    const struct cli_verb *v;
    int words;

    if (c->pos_n == 0) {
        help_all(stdout);
        return CLI_OK;
    }
    if (strcmp(c->pos[0], "spec") == 0) {
        keys_print(stdout);
        return CLI_OK;
    }
    v = verb_find(c->pos[0], c->pos_n > 1 ? c->pos[1] : NULL, &words);
    if (v != NULL) {
        help_verb(v, stdout);
        return CLI_OK;
    }
    if (!is_group(c->pos[0]))
        return verb_unknown(c->pos[0], c->pos_n > 1 ? c->pos[1] : NULL);
    for (int i = 0; i < cli_verbs_n; i++)
        if (strncmp(cli_verbs[i].name, c->pos[0], strlen(c->pos[0])) == 0)
            help_verb(&cli_verbs[i], stdout);
    return CLI_OK;
}

/* ---- completion ------------------------------------------------------------------------------ */

int cli_completion(struct cli *c)
{
    if (c->pos_n > 0 && strcmp(c->pos[0], "bash") != 0)
        return cli_fail(CLI_USAGE, "steerctl completion bash",
                        "completion is for bash; \"%.40s\" is not known", c->pos[0]);
    printf("# eval \"$(steerctl completion bash)\"\n_steerctl() {\n"
           "    local cur=${COMP_WORDS[COMP_CWORD]} verb=${COMP_WORDS[1]} words= kind= verbs=\"");
    for (int i = 0; i < cli_verbs_n; i++) {
        const char *name = cli_verbs[i].name;
        size_t n = strcspn(name, " ");
        if (i == 0 || strncmp(cli_verbs[i - 1].name, name, n) != 0 ||
            cli_verbs[i - 1].name[n] != ' ')
            printf("%.*s ", (int)n, name);
    }
    printf("\"\n"
           "    case \"$verb\" in worker|artifact|data) [ \"$COMP_CWORD\" -gt 2 ] && verb=\"$verb "
           "${COMP_WORDS[2]}\" ;; esac\n"
           "    if [ \"$COMP_CWORD\" -eq 1 ]; then\n        words=$verbs\n    else\n        case "
           "\"$verb\" in\n");
    for (int i = 0; i < cli_verbs_n; i++) {
        const struct cli_verb *v = &cli_verbs[i];
        printf("        \"%s\") kind=%s words=\"", v->name,
               v->complete != NULL ? v->complete : "none");
        for (int o = 0; o < OPT_COUNT; o++)
            if ((v->options & OPT_BIT(o)) != 0)
                printf("--%s ", options[o].word);
        printf("\" ;;\n");
    }
    for (int i = 0; i < cli_verbs_n; i++) {
        const char *name = cli_verbs[i].name;
        size_t n = strcspn(name, " ");
        if (name[n] == '\0' || (i > 0 && strncmp(cli_verbs[i - 1].name, name, n + 1) == 0))
            continue;
        printf("        %.*s) words=\"", (int)n, name);
        for (int k = i; k < cli_verbs_n; k++)
            if (strncmp(cli_verbs[k].name, name, n + 1) == 0)
                printf("%s ", cli_verbs[k].name + n + 1);
        printf("\" ;;\n");
    }
    printf(
        "        esac\n"
        "        case \"$kind\" in\n"
        "        jobs) [[ $cur != -* ]] && words=\"$words $(steerctl ls -o name 2>/dev/null)\" ;;\n"
        "        verbs) words=\"$verbs spec\" ;;\n"
        "        files) [[ $cur != -* ]] && { COMPREPLY=($(compgen -f -- \"$cur\")); compopt -o "
        "filenames; return; } ;;\n"
        "        esac\n    fi\n"
        "    COMPREPLY=($(compgen -W \"$words\" -- \"$cur\"))\n}\ncomplete -F _steerctl "
        "steerctl\n");
    return CLI_OK;
}

/* ---- parsing --------------------------------------------------------------------------------- */

static int option_unknown(const struct cli_verb *v, const char *word)
{
    const char *names[OPT_COUNT], *near;
    char next[96];
    int n = 0;

    for (int o = 0; o < OPT_COUNT; o++)
        if ((v->options & OPT_BIT(o)) != 0)
            names[n++] = options[o].word;
    near = n > 0 ? suggest_nearest(word + strspn(word, "-"), names, (size_t)n) : NULL;
    snprintf(next, sizeof next, "steerctl help %s", v->name);
    return cli_fail(CLI_USAGE, next, "%s has no option \"%.60s\"%s%s%s", v->name, word,
                    near != NULL ? "; did you mean --" : "", near != NULL ? near : "",
                    near != NULL ? "?" : "");
}

/* One option at argv[*i]; moves *i behind its value. */
static int option_parse(struct cli *c, int argc, char **argv, int *i)
{
    const char *arg = argv[*i], *value = NULL;
    int found = -1;

    for (int o = 0; o < OPT_COUNT && found < 0; o++) {
        size_t n = strlen(options[o].word);
        if (o != OPT_HELP && (c->verb->options & OPT_BIT(o)) == 0)
            continue;
        if (arg[1] == '-' && strncmp(arg + 2, options[o].word, n) == 0 &&
            (arg[n + 2] == '\0' || arg[n + 2] == '=')) {
            found = o;
            value = arg[n + 2] == '=' ? arg + n + 3 : NULL;
        } else if (arg[1] != '-' && options[o].letter != 0 && arg[1] == options[o].letter &&
                   (arg[2] == '\0' || options[o].value != NULL)) {
            found = o;
            value = arg[2] != '\0' ? arg + 2 : NULL;
        }
    }
    if (found < 0)
        return option_unknown(c->verb, arg);
    if (options[found].value == NULL && value != NULL)
        return cli_fail(CLI_USAGE, NULL, "--%s takes no value", options[found].word);
    if (options[found].value != NULL && value == NULL) {
        if (*i + 1 >= argc)
            return cli_fail(CLI_USAGE, NULL, "--%s needs its %s", options[found].word,
                            options[found].value);
        value = argv[++*i];
    }
    if (!options[found].repeat && c->opt[found] != NULL)
        return cli_fail(CLI_USAGE, NULL, "--%s is given twice", options[found].word);
    c->opt[found] = value != NULL ? value : "";
    if (found == OPT_SET) {
        if (c->sets_n == CLI_SETS_MAX)
            return cli_fail(CLI_USAGE, NULL, "more than %d --set", CLI_SETS_MAX);
        c->sets[c->sets_n++] = value;
    }
    return CLI_OK;
}

static int args_parse(struct cli *c, int argc, char **argv)
{
    bool ended = false;
    char next[96];
    const char *format;

    for (int i = 0; i < argc; i++) {
        if (!ended && strcmp(argv[i], "--") == 0) {
            ended = true;
        } else if (!ended && argv[i][0] == '-' && argv[i][1] != '\0') {
            int rc = option_parse(c, argc, argv, &i);
            if (rc != CLI_OK)
                return rc;
        } else {
            if (c->pos_n == CLI_POS_MAX)
                return cli_fail(CLI_USAGE, NULL, "more than %d arguments", CLI_POS_MAX);
            c->pos[c->pos_n++] = argv[i];
        }
    }
    if (c->opt[OPT_HELP] != NULL)
        return CLI_OK;
    snprintf(next, sizeof next, "steerctl help %s", c->verb->name);
    if (c->pos_n < c->verb->pos_min)
        return cli_fail(CLI_USAGE, next, "%s needs %s", c->verb->name, c->verb->args);
    if (c->pos_n > c->verb->pos_max)
        return cli_fail(CLI_USAGE, next, "%s does not take \"%.60s\"", c->verb->name,
                        c->pos[c->verb->pos_max]);
    format = c->opt[OPT_OUTPUT];
    c->json = format != NULL && strcmp(format, "json") == 0;
    c->names = format != NULL && strcmp(format, "name") == 0;
    if (format != NULL && !c->json && !c->names && strcmp(format, "table") != 0)
        return cli_fail(CLI_USAGE, next, "-o is \"%.40s\", must be table, json or name", format);
    return CLI_OK;
}

int cli_int(const struct cli *c, enum cli_option o, int64_t min, int64_t max, int64_t fallback,
            int64_t *out)
{
    const char *text = c->opt[o];
    char *end = NULL;
    long long v;

    *out = fallback;
    if (text == NULL)
        return CLI_OK;
    errno = 0;
    v = strtoll(text, &end, 10);
    if (errno != 0 || end == text || *end != '\0' || v < min || v > max)
        return cli_fail(CLI_USAGE, NULL,
                        "--%s is \"%.40s\", must be a whole number of %" PRId64 "..%" PRId64,
                        options[o].word, text, min, max);
    *out = v;
    return CLI_OK;
}

int cli_run(int argc, char **argv)
{
    struct cli c = {0};
    int words = 0, rc;

    if (argc < 2) {
        help_all(stderr);
        return CLI_USAGE;
    }
    if (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0) {
        help_all(stdout);
        return CLI_OK;
    }
    c.verb = verb_find(strcmp(argv[1], "--version") == 0 ? "version" : argv[1],
                       argc > 2 ? argv[2] : NULL, &words);
    if (c.verb == NULL)
        return verb_unknown(argv[1], argc > 2 ? argv[2] : NULL);
    rc = args_parse(&c, argc - 1 - words, argv + 1 + words);
    if (rc != CLI_OK)
        return rc;
    if (c.opt[OPT_HELP] != NULL) {
        help_verb(c.verb, stdout);
        return CLI_OK;
    }
    rc = c.verb->run(&c);
    if (fflush(stdout) != 0 || ferror(stdout))
        return cli_fail(CLI_UNEXPECTED, NULL, "writing the output failed: %s", strerror(errno));
    return rc;
}
