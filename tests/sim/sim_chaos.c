/*
 * What goes wrong: links, machines, processes and disks, one act after the other, while world.chaos is on. Half of the acts
 * aim at a host of a session that runs: that is where most can be lost.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "sim_check.h"
#include "sim_disk.h"
#include "sim_http.h"
#include "sim_net.h"
#include "sim_work.h"
#include "sim_world_inner.h"

#define world sim_world

/* A host of a session that runs, often its leader; 0: there is none. */
static int some_host(void)
{
    const struct coordinator *c = world.coordinator;
    const struct roster_worker *w = NULL;
    const struct sched_session *of = NULL;

    for (int i = 0; c != NULL && i < c->sched.jobs_n; i++)
        for (int k = 0; k < c->sched.job[i]->stages_n; k++) {
            const struct sched_session *ss = c->sched.job[i]->stage[k].session;

            if (ss != NULL && ss->open && ss->hosts_n > 0 && (of == NULL || sim_chance(500)))
                of = ss;
        }
    if (of != NULL)
        w = roster_find(&c->roster,
                        of->host[sim_chance(300) ? 0 : sim_draw((uint32_t)of->hosts_n)].worker);
    return w != NULL ? atoi(w->name + 1) : 0; /* "w3" */
}

static int some_worker(void)
{
    int host = sim_chance(500) ? some_host() : 0;

    if (host != 0)
        return host;
    return 1 + (int)sim_draw((uint32_t)world.workers);
}

static void on_uncut(void *self, uint64_t from, uint64_t to)
{
    (void)self;
    sim_net_cut((int)from, (int)to, false);
}

static void cut(int from, int to, uint64_t for_us)
{
    if (from == to)
        return;
    sim_net_cut(from, to, true);
    sim_at(sim_now_us() + for_us, on_uncut, NULL, (uint64_t)from, (uint64_t)to);
    sim_trace("cut %d -> %d for %.1f s", from, to, (double)for_us / 1e6);
}

static void on_flap(void *self, uint64_t node, uint64_t times)
{
    uint64_t down = 50000 + sim_draw(900000);

    (void)self;
    if (!world.chaos || times == 0)
        return;
    for (int o = 0; o <= world.workers; o++) {
        cut((int)node, o, down);
        cut(o, (int)node, down);
    }
    sim_at(sim_now_us() + down + sim_draw(900000), on_flap, NULL, node, times - 1);
}

static void on_space(void *self, uint64_t a, uint64_t b)
{
    (void)self;
    (void)a;
    (void)b;
    sim_disk_faults.full = false;
}

static void signal_drain(int node)
{
    struct sim_node *n = &world.node[node];

    if (n->proc == NULL || n->signal || n->left)
        return;
    n->signal = n->left = true; /* a second signal would be a kill */
    sim_fd_wake(n->signal_fd);
    sim_trace("SIGTERM to node %d", node);
    world.out->faults.drain_signal++;
}

static void links_act(void)
{
    struct sim_world *w = &world;
    int a = some_worker(), b = some_worker();
    uint64_t us = 200000 + sim_draw(sim_chance(300) ? 12000000 : 2500000);

    switch (sim_draw(5)) {
    case 0:
        if (w->on.cut_control) {
            cut(a, 0, us);
            cut(0, a, us);
            w->out->faults.cut_control++;
        }
        break;
    case 1:
        if (w->on.cut_data && a != b) {
            cut(a, b, us);
            cut(b, a, us);
            w->out->faults.cut_data++;
        }
        break;
    case 2:
        if (w->on.cut_one_way) {
            b = sim_chance(500) ? 0 : b;
            if (a != b) {
                if (sim_chance(500))
                    cut(b, a, us);
                else
                    cut(a, b, us);
                w->out->faults.cut_one_way++;
            }
        }
        break;
    case 3:
        if (w->on.flap) {
            on_flap(NULL, (uint64_t)a, 2 + sim_draw(6));
            w->out->faults.flap++;
        }
        break;
    default:
        if (w->on.isolate) {
            for (int o = 0; o <= w->workers; o++) {
                cut(a, o, us);
                cut(o, a, us);
            }
            w->out->faults.isolate++;
        }
        break;
    }
}

/* A chunk of a checkpoint, or its manifest, is torn; mostly a host is lost then, so that it is read. */
static void checkpoint_damage(void)
{
    const char *manifest = sim_check_some_checkpoint(), *text = NULL, *at = NULL;
    char digest[DIGEST_HEX + 1];
    size_t len = 0;
    uint32_t chunks = 0;

    text = manifest != NULL ? sim_disk_get(manifest, &len) : NULL;
    if (text == NULL)
        return;
    snprintf(digest, sizeof digest, "%s", manifest);
    at = strstr(text, "\"chunks\":[\"");
    if (at != NULL && sim_chance(700)) {
        at += strlen("\"chunks\":[\"");
        while (at[chunks * (DIGEST_HEX + 3) + DIGEST_HEX + 1] == ',')
            chunks++;
        snprintf(digest, sizeof digest, "%.*s", DIGEST_HEX,
                 at + sim_draw(chunks + 1) * (DIGEST_HEX + 3));
    }
    world.out->faults.damage += sim_disk_damage(digest);
    for (int i = sim_chance(700) ? 1 : world.workers + 1; i <= world.workers; i++)
        if (sim_chance(600))
            sim_world_kill(i, sim_draw(3000000));
}

static void machines_act(void)
{
    struct sim_world *w = &world;
    int a = some_worker();
    struct sim_node *n = &w->node[a];
    uint64_t us = 100000 + sim_draw(sim_chance(300) ? 15000000 : 3000000);

    switch (sim_draw(10)) {
    case 8:
        if (w->on.damage)
            checkpoint_damage();
        break;
    case 0:
    case 1:
        if (w->on.kill_worker && n->proc != NULL) {
            sim_world_kill(a, sim_draw(5000000));
            w->out->faults.kill_worker++;
        }
        break;
    case 2:
        if (w->on.kill_coordinator && w->node[0].proc != NULL) {
            sim_world_coordinator_crash();
            w->out->faults.kill_coordinator++;
        }
        break;
    case 3:
        if (w->on.stop_worker && n->proc != NULL) {
            sim_trace("stop node %d for %.1f s", a, (double)us / 1e6);
            sim_proc_stop(n->proc, sim_now_us() + us);
            w->out->faults.stop_worker++;
        }
        break;
    case 4:
        if (w->on.stop_coordinator && w->node[0].proc != NULL) {
            sim_trace("stop the coordinator for %.1f s", (double)us / 1e6);
            sim_proc_stop(w->node[0].proc, sim_now_us() + us);
            w->out->faults.stop_coordinator++;
        }
        break;
    case 5:
        if (w->on.drain_signal)
            signal_drain(a);
        break;
    case 6:
        if (w->on.drain_api && w->coordinator != NULL && w->coordinator->roster.n > 0) {
            const struct roster *r = &w->coordinator->roster;
            char path[100];

            snprintf(path, sizeof path, "/v1/workers/%s/drain",
                     r->worker[sim_draw((uint32_t)r->n)]->id);
            sim_http_ask(path);
            w->out->faults.drain_api++;
        }
        break;
    case 7:
        if (w->on.join && n->proc == NULL) {
            n->left = false;
            sim_world_start(a);
            w->out->faults.join++;
        }
        break;
    default:
        if (w->on.disk_full && !sim_disk_faults.full) {
            sim_disk_faults.full = true;
            sim_trace("the disk is full");
            sim_at(sim_now_us() + us, on_space, NULL, 0, 0);
            w->out->faults.disk_full++;
        }
        break;
    }
}

static void on_chaos(void *self, uint64_t a, uint64_t b)
{
    (void)self;
    (void)a;
    (void)b;
    if (!world.chaos)
        return;
    if (sim_chance(350))
        links_act();
    else
        machines_act();
    /* Most of all while a session runs. */
    sim_at(sim_now_us() + 1000 + sim_draw(2 * world.pace_us / (some_host() != 0 ? 3 : 1)), on_chaos,
           NULL, 0, 0);
}

void sim_chaos_begin(void)
{
    sim_at(sim_now_us() + 500000, on_chaos, NULL, 0, 0);
}

/* Each fault is on in half of the runs; how bad it is differs too. */
void sim_chaos_draw(void)
{
#define X(name) world.on.name = sim_chance(450);
    SIM_FAULTS(X)
#undef X
    sim_net_faults =
        (struct sim_net_faults){.drop = world.on.drop ? 1 + sim_draw(100) : 0,
                                .twice = world.on.twice ? 1 + sim_draw(100) : 0,
                                .late = world.on.late ? 1 + sim_draw(80) : 0,
                                .flip = world.on.flip ? 1 + sim_draw(100) : 0,
                                .late_us = 10000 + sim_draw(3000000),
                                .reorder = world.on.reorder,
                                .delay_us = 200 + sim_draw(sim_chance(300) ? 200000 : 10000)};
    if (world.on.commit_crash) {
        sim_disk_faults.crash_before = sim_draw(12);
        sim_disk_faults.crash_after = sim_draw(12);
    }
    sim_disk_faults.io_error = world.on.commit_error ? sim_draw(8) : 0;
    sim_work_faults.hang = world.on.hang ? 1 + sim_draw(20) : 0;
    sim_work_faults.task_fails = world.on.task_fails ? sim_draw(200) : 0;
    world.failpoint_rate = 50 + sim_draw(4000);
}

void sim_chaos_slow(void)
{
    for (int i = 1; i <= world.workers && world.on.slow; i++)
        if (sim_chance(400)) {
            world.node[i].slowness = 200 + sim_draw(1500);
            world.out->faults.slow++;
        }
}
