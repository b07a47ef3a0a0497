/*
 * The scheduler, the roster and the journal under a hostile cluster: a virtual clock, links that
 * lose, double and delay, workers that die, hang, drain and come back, a coordinator that is killed
 * between commit and send and starts again from its journal. After every event the invariants are
 * checked; after the last fault the cluster heals, and every job must end with the outputs that an
 * undisturbed run gives. `SIM_SEED=n` runs one seed; a failure prints its seed.
 */
#include <inttypes.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/file.h"
#include "fake_cluster.h"
#include "fake_coordinator.h"

#define STEP_MS 20
#define HOSTILE_MS 60000  /* then it heals... */
#define HEALING_MS 200000 /* ... and this is enough for everything to end */

static void turn(struct fake_cluster *cluster, struct fake_coordinator *c)
{
    struct letter l;
    int slot = 0;

    cluster->now_ms += STEP_MS;
    if (!c->up && cluster->now_ms >= c->up_ms)
        fake_coordinator_start(c);
    while (fake_next(cluster, &slot, &l)) {
        if (l.to >= 0)
            fake_worker_hears(cluster, l.to, &l);
        else if (c->up)
            fake_coordinator_hears(c, &l);
    }
    fake_workers_act(cluster);
    if (c->up)
        fake_coordinator_tick(c);
}

/* What each stage gave. */
static char *outputs(const struct fake_coordinator *c)
{
    struct buf out = BUF_INIT;

    for (int k = 0; k < c->sched.job[0]->stages_n; k++) {
        const struct sched_stage *st = &c->sched.job[0]->stage[k];

        if (st->state != RUN_SUCCEEDED)
            fail_msg("seed %" PRIu64 ": stage %s is %s: %s", c->cluster->seed, st->name,
                     run_state_name(st->state), c->sched.job[0]->failure.message);
        buf_printf(&out, "%s ", st->name);
        json_canonical(st->outputs, &out);
    }
    return buf_take(&out);
}

static char *run(uint64_t seed, bool hostile)
{
    struct fake_cluster *cluster = calloc(1, sizeof *cluster);
    struct fake_coordinator *c = calloc(1, sizeof *c);
    char dir[128], *out = NULL;
    struct err e = {0};
    uint64_t healed_ms = 0;

    cluster->seed = seed;
    cluster->healed = !hostile;
    cluster->loss_rate = seed / 4 % 2 == 0 ? 10 : 80; /* some runs have long calm sessions */
    cluster->kill_rate = (uint32_t)(seed % 3);
    c->cluster = cluster;
    c->restart_rate = 1 + (uint32_t)(seed % 4) * 4;
    snprintf(dir, sizeof dir, "%s/steer-sim-XXXXXX",
             access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp");
    assert_non_null(mkdtemp(dir));
    snprintf(c->path, sizeof c->path, "%s/db", dir);
    fake_coordinator_start(c);
    fake_coordinator_submit(c, "jobs/specs/smoke.yaml");
    while (!fake_coordinator_all_over(c)) {
        if (!cluster->healed && cluster->now_ms > HOSTILE_MS) {
            cluster->healed = true;
            healed_ms = cluster->now_ms;
        }
        turn(cluster, c);
        if (cluster->now_ms > healed_ms + HEALING_MS)
            fail_msg("seed %" PRIu64 ": not over %" PRIu64 " ms after the last fault", seed,
                     cluster->now_ms - healed_ms);
    }
    out = outputs(c);
    printf("seed %" PRIu64 ": over at %" PRIu64 " ms, %" PRIu64 " leases, %" PRIu64
           " workers killed, %" PRIu64 " coordinator restarts, %" PRIu64 " sessions taken over\n",
           seed, cluster->now_ms, c->leases, cluster->kills, c->restarts, c->adopted);
    fake_coordinator_fini(c);
    file_remove_tree(dir, &e);
    free(c);
    free(cluster);
    return out;
}

static void test_jobs_end_with_the_same_outputs(void **state)
{
    const char *one = getenv("SIM_SEED");
    char *want = run(0, false);
    uint64_t first = one != NULL ? strtoull(one, NULL, 10) : 1, last = one != NULL ? first : 16;

    (void)state;
    for (uint64_t seed = first; seed <= last; seed++) {
        char *got = NULL;

        printf("seed %" PRIu64 " starts\n", seed);
        got = run(seed, true);
        assert_string_equal(got, want);
        free(got);
    }
    free(want);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_jobs_end_with_the_same_outputs)};

    return cmocka_run_group_tests(tests, NULL, NULL);
}
