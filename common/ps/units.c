#include "ps/units.h"

#include <stdlib.h>

#include "base/err.h"
#include "base/rng.h"
#include "types/tree.h"

struct lengths {
    uint32_t (*length)(void *self, uint32_t example);
    void *self;
};

/* Longest first; equal lengths in the order of the stream. A total order, so any sort gives the
 * same result. */
static int longer_first(const void *a, const void *b, void *lengths)
{
    const struct unit_sample *x = a;
    const struct unit_sample *y = b;
    const struct lengths *l = lengths;
    uint32_t lx = l->length(l->self, x->example);
    uint32_t ly = l->length(l->self, y->example);

    if (lx != ly)
        return lx > ly ? -1 : 1;
    return x->draw < y->draw ? -1 : x->draw > y->draw;
}

static int by_unit(const void *a, const void *b)
{
    const struct unit_sample *x = a;
    const struct unit_sample *y = b;

    if (x->unit != y->unit)
        return x->unit < y->unit ? -1 : 1;
    return x->draw < y->draw ? -1 : x->draw > y->draw;
}

void units_deal(uint64_t seed, uint64_t step, uint32_t global_batch, uint32_t m, uint32_t examples,
                uint32_t (*length)(void *self, uint32_t example), void *self,
                struct unit_sample *out)
{
    static _Thread_local uint64_t load[TREE_UNITS_MAX];
    struct lengths lengths = {length, self};

    CHECK(m >= 1 && m <= TREE_UNITS_MAX && global_batch >= 1 && examples >= 1);
    for (uint32_t j = 0; j < global_batch; j++) {
        uint64_t q = step * global_batch + j;
        uint32_t pass = (uint32_t)(q / examples);
        out[j].draw = q;
        out[j].example = rng_permute(seed, RNG_ORDER, pass, examples, (uint32_t)(q % examples));
    }
    qsort_r(out, global_batch, sizeof *out, longer_first, &lengths);
    for (uint32_t u = 0; u < m; u++)
        load[u] = 0;
    for (uint32_t j = 0; j < global_batch; j++) {
        uint32_t least = 0;
        for (uint32_t u = 1; u < m; u++)
            if (load[u] < load[least])
                least = u;
        out[j].unit = least;
        load[least] += length(self, out[j].example);
    }
    qsort(out, global_batch, sizeof *out, by_unit);
}
