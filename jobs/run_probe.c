/*
 * A probe does nothing, or sleeps: what it shows is that the way from a submit to a worker and back
 * works, on every worker, and how fast. So it takes no inputs and leaves no outputs.
 */
#include "base/beat.h"
#include "base/clock.h"
#include "jobs/run.h"

#define NAP_MS 50 /* between two looks at whether somebody wants it to stop */

int run_probe(const struct run_task *t, const struct run_env *env, struct run_result *r,
              struct err *e)
{
    uint64_t begun, passed = 0, whole = (uint64_t)t->spec->probe.sleep_ms;

    (void)r;
    if (whole == 0)
        return 0;
    for (begun = clock_ms(); passed < whole; passed = clock_ms() - begun) {
        if (env->cancelled(env->self))
            return err_set(e, ERR_CANCELLED, "told to stop");
        clock_sleep_ms(whole - passed < NAP_MS ? whole - passed : NAP_MS);
        beat();
        env->progress(env->self, passed, whole);
    }
    return 0;
}
