#include "base/fault.h"

#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/clock.h"
#include "base/suggest.h"

enum kind { PLACE, CALL, DEED };
enum action { NONE, EXIT, FAIL, SLEEP, DO };

static const struct {
    const char *name;
    enum kind kind;
    const char *who, *what;
} table[FAULTS_COUNT] = {
#define X(id, name, kind, who, what) {name, kind, who, what},
    FAULTS(X)
#undef X
};

static const char *const names[FAULTS_COUNT] = {
#define X(id, name, kind, who, what) name,
    FAULTS(X)
#undef X
};

static struct {
    enum action action;
    enum err_code code; /* of FAIL */
    uint64_t at;
    uint64_t every; /* hits from one to the next; 0: once */
    unsigned sleep_ms;
    atomic_uint_fast64_t hits;
} set[FAULTS_COUNT];

bool fault_armed;

static int find(const char *name, struct err *e)
{
    const char *near;

    for (int i = 0; i < FAULTS_COUNT; i++)
        if (strcmp(names[i], name) == 0)
            return i;
    near = suggest_nearest(name, names, FAULTS_COUNT);
    err_set(e, ERR_INVALID, "unknown fault %.60s%s%s; --faults lists them", name,
            near != NULL ? ", did you mean " : "", near != NULL ? near : "");
    return -1;
}

static bool number(const char *text, uint64_t min, uint64_t max, uint64_t *out)
{
    char *end = NULL;

    *out = strtoull(text, &end, 10);
    return text[0] >= '0' && text[0] <= '9' && *end == '\0' && *out >= min && *out <= max;
}

static int action_take(int f, const char *word, struct err *e)
{
    uint64_t n;

    if (strcmp(word, "every") == 0) {
        set[f].every = 1;
    } else if (strncmp(word, "every=", 6) == 0 && number(word + 6, 1, UINT32_MAX, &n)) {
        set[f].every = n;
    } else if (strcmp(word, "exit") == 0 && table[f].kind != DEED) {
        set[f].action = EXIT;
    } else if (strncmp(word, "sleep=", 6) == 0 && number(word + 6, 1, 3600000, &n)) {
        set[f].action = SLEEP;
        set[f].sleep_ms = (unsigned)n;
    } else if (strncmp(word, "err", 3) == 0 && table[f].kind != CALL) {
        return err_set(e, ERR_INVALID, "%s can't fail: exit or sleep=MS", names[f]);
    } else if (strcmp(word, "err") == 0 || strcmp(word, "err=eio") == 0) {
        set[f].action = FAIL;
        set[f].code = ERR_IO;
    } else if (strcmp(word, "err=enospc") == 0) {
        set[f].action = FAIL;
        set[f].code = ERR_NO_SPACE;
    } else {
        return err_set(
            e, ERR_INVALID,
            "%s: action \"%.40s\", must be exit, err=eio, err=enospc, sleep=MS, every or every=K",
            names[f], word);
    }
    return 0;
}

/* name:n[:action][:every[=K]] */
static int one_take(char *text, struct err *e)
{
    char *at = NULL;
    char *name = strtok_r(text, ":", &at);
    char *n = strtok_r(NULL, ":", &at);
    int rc = 0;
    int f;

    if (name == NULL)
        return 0;
    f = find(name, e);
    if (f < 0)
        return ERR_INVALID;
    if (n == NULL || !number(n, 1, UINT32_MAX, &set[f].at))
        return err_set(e, ERR_INVALID, "%s:%.20s: the hit must be a number from 1 on", name,
                       n != NULL ? n : "");
    set[f].action = table[f].kind == DEED ? DO : EXIT;
    for (char *word; rc == 0 && (word = strtok_r(NULL, ":", &at)) != NULL;)
        rc = action_take(f, word, e);
    return rc;
}

int fault_set(const char *text, struct err *e)
{
    char *copy = mem_strdup(text != NULL ? text : "");
    char *at = NULL;
    int rc = 0;

    fault_armed = false;
    for (int i = 0; i < FAULTS_COUNT; i++) {
        set[i].action = NONE;
        set[i].every = 0;
        atomic_store(&set[i].hits, 0);
    }
    for (char *one = strtok_r(copy, ",", &at); rc == 0 && one != NULL;
         one = strtok_r(NULL, ",", &at))
        rc = one_take(one, e);
    for (int i = 0; rc == 0 && i < FAULTS_COUNT; i++)
        fault_armed = fault_armed || set[i].action != NONE;
    free(copy);
    return rc;
}

int fault_init(struct err *e)
{
    return fault_set(getenv("STEER_FAULT"), e) != 0 ? err_wrap(e, "STEER_FAULT") : 0;
}

/* Counts the hit; NONE unless it is one to act at. Said by one write(), because stdio may be what
 * another thread holds. */
static enum action strike(enum fault f, uint64_t *hit)
{
    static const char *const done[] = {"none", "exit", "err", "sleep", "do"};
    char *line;
    ssize_t told;

    *hit = atomic_fetch_add(&set[f].hits, 1) + 1;
    if (set[f].action == NONE || *hit < set[f].at ||
        (set[f].every == 0 ? *hit != set[f].at : (*hit - set[f].at) % set[f].every != 0))
        return NONE;
    if (*hit == set[f].at) {
        line = mem_printf("fault %s hit=%llu %s\n", names[f], (unsigned long long)*hit,
                          done[set[f].action]);
        told = write(STDERR_FILENO, line, strlen(line));
        (void)told; /* nobody listens: the fault happens all the same */
        free(line);
    }
    if (set[f].action == EXIT)
        _exit(137);
    if (set[f].action == SLEEP)
        clock_sleep_ms(set[f].sleep_ms);
    return set[f].action;
}

bool fault_strike(enum fault f)
{
    uint64_t hit;

    return strike(f, &hit) == DO;
}

int fault_strike_error(enum fault f, struct err *e)
{
    uint64_t hit;

    if (strike(f, &hit) != FAIL)
        return 0;
    return err_set(e, set[f].code, "fault %s, hit %llu: %s", names[f], (unsigned long long)hit,
                   set[f].code == ERR_IO ? "Input/output error" : "No space left on device");
}

const char *fault_name(enum fault f)
{
    return names[f];
}

void fault_list(FILE *out)
{
    static const char *const kinds[] = {"place", "call", "deed"};

    for (int i = 0; i < FAULTS_COUNT; i++)
        fprintf(out, "%s\t%s\t%s\t%s\n", names[i], table[i].who, kinds[table[i].kind],
                table[i].what);
}
