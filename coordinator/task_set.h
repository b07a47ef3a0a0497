/*
 * task_set: a set of numbers below a fixed bound, for the tasks of a phase that are in some state.
 * Adding, taking out and finding the next member cost a handful of words looked at, however many
 * numbers there are and however few of them are members. Pure.
 */
#ifndef COORDINATOR_TASK_SET_H
#define COORDINATOR_TASK_SET_H

#include <stdbool.h>
#include <stdint.h>

#define TASK_SET_LEVELS 4 /* of 64 each: 16,777,216 numbers */
#define TASK_SET_MAX (1u << 24)
#define TASK_SET_NONE UINT32_MAX

struct task_set {
    uint32_t bound, count;
    int levels;
    uint64_t *word[TASK_SET_LEVELS]; /* word[0]: a bit a number; word[k]: which words of word[k - 1]
                                        are not 0 */
};

/* Of numbers below bound, at most TASK_SET_MAX; empty, or all of them. What it held before is freed. */
void task_set_init(struct task_set *s, uint32_t bound, bool full);
void task_set_fini(struct task_set *s); /* also of one that is all zero */
void task_set_add(struct task_set *s, uint32_t n);
void task_set_drop(struct task_set *s, uint32_t n); /* no harm if it is no member */
bool task_set_has(const struct task_set *s, uint32_t n);
/* The lowest member that is n or above; TASK_SET_NONE if there is none. So all of them, also while
 * the one in hand is taken out:
 *     for (uint32_t i = task_set_next(s, 0); i != TASK_SET_NONE; i = task_set_next(s, i + 1)) */
uint32_t task_set_next(const struct task_set *s, uint32_t n);
/* Words looked at since the process began, by one thread: for the test that says that this does not
 * grow. */
uint64_t task_set_looks(void);

#endif
