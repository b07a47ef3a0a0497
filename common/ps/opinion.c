#include "ps/opinion.h"

#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "base/err.h"
#include "base/rng.h"

struct opinions {
    uint32_t units, chunks, nodes; /* nodes: of one chunk's tree */
    uint32_t level_at[33];
    uint32_t *index; /* [chunks * nodes] 1 + place in v; 0 = not questioned */
    uint32_t n, cap, open;
    struct opinion *v;
};

struct opinions *opinions_new(uint32_t units, uint32_t chunks)
{
    struct opinions *o = mem_zalloc(1, sizeof *o);

    o->units = units;
    o->chunks = chunks;
    for (uint32_t level = 0; level <= tree_height(units); level++) {
        o->level_at[level] = o->nodes;
        o->nodes += (units + (1u << level) - 1) >> level;
    }
    o->index = mem_zalloc((size_t)chunks * o->nodes, sizeof *o->index);
    return o;
}

void opinions_free(struct opinions *o)
{
    if (o == NULL)
        return;
    free(o->index);
    free(o->v);
    free(o);
}

static uint32_t *index_of(const struct opinions *o, struct tree_node node, uint32_t chunk)
{
    CHECK(chunk < o->chunks && tree_node_is_valid(o->units, node));
    return &o->index[(size_t)chunk * o->nodes + o->level_at[node.level] + node.index];
}

void opinions_reset(struct opinions *o)
{
    for (uint32_t i = 0; i < o->n; i++)
        *index_of(o, o->v[i].node, o->v[i].chunk) = 0;
    o->n = o->open = 0;
}

bool opinions_audits(uint64_t seed, double share, uint64_t step, struct tree_node node)
{
    if (!(share > 0))
        return false;
    return share >= 1 || rng_unit(seed, RNG_AUDIT, (uint32_t)step, node.level, node.index) < share;
}

static bool holds(const struct opinion *op)
{
    return op->state != OPINION_SETTLED || op->tainted;
}

static void voice_add(struct opinion *op, struct opinion_voice voice)
{
    for (uint32_t i = 0; i < op->voices_n; i++)
        if (op->voice[i].who == voice.who && op->voice[i].hash == voice.hash)
            return;
    if (op->voices_n < OPINION_VOICES_MAX)
        op->voice[op->voices_n++] = voice;
}

/* A hash that two different workers have said. A sum of parts (who 0) confirms nobody: the parts may be of who speaks. */
static bool agreement(const struct opinion *op, uint64_t *hash)
{
    for (uint32_t i = 0; i < op->voices_n; i++)
        for (uint32_t k = 0; k < i; k++)
            if (op->voice[i].hash == op->voice[k].hash && op->voice[i].who != 0 &&
                op->voice[k].who != 0) { /* voice_add(): then who differs */
                *hash = op->voice[i].hash;
                return true;
            }
    return false;
}

static void judge(struct opinion *op)
{
    op->news = false;
    for (uint32_t i = 1; i < op->voices_n; i++)
        if (op->voice[i].hash != op->voice[0].hash)
            op->disputed = true;
    if (op->waived && op->disputed) { /* who was waived was believed, not confirmed */
        op->waived = false;
        op->state = OPINION_DISPUTED;
    }
    if (op->state != OPINION_SETTLED && agreement(op, &op->agreed)) {
        op->state = OPINION_SETTLED;
        op->news = true;
        op->tainted = op->agreed != op->folded;
    }
    if (op->state != OPINION_SETTLED) {
        op->state = op->disputed ? OPINION_DISPUTED : OPINION_WAITING;
        return;
    }
    for (uint32_t i = 0; i < op->voices_n && op->odd == 0; i++)
        if (op->voice[i].hash != op->agreed && op->voice[i].who != 0) {
            op->odd = op->voice[i].who;
            op->news = true;
        }
}

const struct opinion *opinions_take(struct opinions *o, struct tree_node node, uint32_t chunk,
                                    bool audited, struct opinion_voice voice,
                                    struct opinion_voice folded)
{
    uint32_t *at = index_of(o, node, chunk);
    struct opinion *op;
    bool held;

    if (*at == 0) {
        if (!audited && voice.hash == folded.hash)
            return NULL;
        if (o->n == o->cap) {
            o->cap = o->cap * 2 + 64;
            o->v = mem_grow(o->v, o->cap, sizeof *o->v);
        }
        op = &o->v[o->n++];
        *op = (struct opinion){.node = node, .chunk = chunk, .folded = folded.hash};
        voice_add(op, folded);
        *at = o->n;
        o->open++;
    }
    op = &o->v[*at - 1];
    held = holds(op);
    voice_add(op, voice);
    judge(op);
    o->open += !held && holds(op);
    o->open -= held && !holds(op);
    return op;
}

void opinions_waive(struct opinions *o, struct tree_node node)
{
    for (uint32_t i = 0; i < o->n; i++) {
        struct opinion *op = &o->v[i];
        if (op->node.level != node.level || op->node.index != node.index ||
            op->state != OPINION_WAITING)
            continue;
        op->state = OPINION_SETTLED;
        op->agreed = op->folded;
        op->waived = true;
        o->open--;
    }
}

bool opinions_hold(const struct opinions *o)
{
    return o->open > 0;
}

uint32_t opinions_n(const struct opinions *o)
{
    return o->n;
}

const struct opinion *opinions_at(const struct opinions *o, uint32_t i)
{
    CHECK(i < o->n);
    return &o->v[i];
}
