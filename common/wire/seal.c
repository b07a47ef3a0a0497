#include "wire/seal.h"

#include <string.h>
#include <xxhash.h>

static uint64_t seal_of(const void *packed, size_t len, const struct link_frame *frames, int n)
{
    uint64_t seal = XXH3_64bits(packed, len - sizeof seal);

    for (int i = 0; i < n; i++)
        seal = XXH3_64bits_withSeed(frames[i].data, frames[i].len, seal);
    return seal != 0 ? seal : SEAL_OPEN; /* 0 does not travel */
}

void seal_put(uint8_t *packed, size_t len, const struct link_frame *frames, int n)
{
    uint64_t seal = seal_of(packed, len, frames, n);

    memcpy(packed + len - sizeof seal, &seal, sizeof seal); /* little-endian, as all that we send */
}

bool seal_fits(const void *packed, size_t len, uint64_t seal, const struct link_frame *frames,
               int n)
{
    uint64_t last;

    if (seal == 0 || len < sizeof last)
        return false;
    memcpy(&last, (const uint8_t *)packed + len - sizeof last, sizeof last);
    return last == seal && seal == seal_of(packed, len, frames, n);
}
