/*
 * pages: long rows of memory, zeroed and aligned to cache lines; those of several MiB on huge pages
 * where the machine gives them, because walking gigabytes by pages of 4 KiB costs.
 */
#ifndef BASE_PAGES_H
#define BASE_PAGES_H

#include <stddef.h>

void *pages_new(size_t bytes);          /* aborts on failure */
void pages_free(void *p, size_t bytes); /* the same number; NULL is fine */

#endif
