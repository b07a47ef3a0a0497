#include "modelfile/safetensors.h"

#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/buf.h"
#include "json/json.h"

#define LIMITS                                                                                     \
    ((struct json_limits){SAFETENSORS_HEADER_MAX, (size_t)SAFETENSORS_TENSORS_MAX * 24, 4})
#define DIM_MAX ((int64_t)1 << 31)
#define OFFSET_MAX ((int64_t)1 << 53) /* what a JSON number holds exactly */

static int dtype_parse(const char *name, enum safetensors_dtype *out, uint64_t *bytes)
{
    static const struct {
        const char *name;
        enum safetensors_dtype dtype;
        uint64_t bytes;
    } known[] = {
        {"F32", DTYPE_F32, 4},    {"F64", DTYPE_F64, 8},     {"F16", DTYPE_F16, 2},
        {"BF16", DTYPE_BF16, 2},  {"BOOL", DTYPE_BUFFER, 1}, {"U8", DTYPE_BUFFER, 1},
        {"I8", DTYPE_BUFFER, 1},  {"U16", DTYPE_BUFFER, 2},  {"I16", DTYPE_BUFFER, 2},
        {"U32", DTYPE_BUFFER, 4}, {"I32", DTYPE_BUFFER, 4},  {"U64", DTYPE_BUFFER, 8},
        {"I64", DTYPE_BUFFER, 8},
    };

    for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
        if (strcmp(known[i].name, name) == 0) {
            *out = known[i].dtype;
            *bytes = known[i].bytes;
            return 0;
        }
    }
    return -1;
}

static int integer_get(const cJSON *j, int64_t max, uint64_t *out)
{
    if (!cJSON_IsNumber(j) || !(j->valuedouble >= 0 && j->valuedouble <= (double)max))
        return -1;
    *out = (uint64_t)j->valuedouble;
    return (double)*out == j->valuedouble ? 0 : -1;
}

static int shape_parse(const cJSON *shape, struct safetensors_entry *x, struct err *e)
{
    x->elements = 1;
    if (!cJSON_IsArray(shape))
        return err_set(e, ERR_INVALID, "shape is not an array");
    for (const cJSON *d = shape->child; d != NULL; d = d->next) {
        if (x->dims == SAFETENSORS_DIMS_MAX)
            return err_set(e, ERR_LIMIT, "more than %d dimensions", SAFETENSORS_DIMS_MAX);
        if (integer_get(d, DIM_MAX, &x->shape[x->dims]) != 0)
            return err_set(e, ERR_INVALID, "shape[%d] is not an integer 0..2^31", x->dims);
        if (__builtin_mul_overflow(x->elements, x->shape[x->dims], &x->elements))
            return err_set(e, ERR_LIMIT, "the product of the shape overflows");
        x->dims++;
    }
    return 0;
}

static int entry_parse(const cJSON *j, struct safetensors_entry *x, struct err *e)
{
    const cJSON *offsets = json_get(j, "data_offsets");
    const char *dtype;
    uint64_t item = 0, bytes;
    int rc;

    if (!cJSON_IsObject(j) || cJSON_GetArraySize(j) != 3)
        return err_set(e, ERR_INVALID, "must be an object of dtype, shape, data_offsets alone");
    if ((rc = json_need_string(j, "dtype", &dtype, e)) != 0 ||
        (rc = shape_parse(json_get(j, "shape"), x, e)) != 0)
        return rc;
    if (dtype_parse(dtype, &x->dtype, &item) != 0)
        return err_set(e, ERR_UNSUPPORTED, "dtype \"%.32s\" is not supported", dtype);
    if (!cJSON_IsArray(offsets) || cJSON_GetArraySize(offsets) != 2 ||
        integer_get(offsets->child, OFFSET_MAX, &x->begin) != 0 ||
        integer_get(offsets->child->next, OFFSET_MAX, &x->end) != 0)
        return err_set(e, ERR_INVALID, "data_offsets is not two integers 0..2^53");
    if (x->end < x->begin)
        return err_set(e, ERR_CORRUPT, "data_offsets end %llu is before begin %llu",
                       (unsigned long long)x->end, (unsigned long long)x->begin);
    if (__builtin_mul_overflow(x->elements, item, &bytes))
        return err_set(e, ERR_LIMIT, "the size of the shape overflows");
    if (bytes != x->end - x->begin)
        return err_set(e, ERR_CORRUPT, "shape and dtype need %llu bytes, data_offsets span %llu",
                       (unsigned long long)bytes, (unsigned long long)(x->end - x->begin));
    return 0;
}

static int metadata_check(const cJSON *j, struct err *e)
{
    if (!cJSON_IsObject(j))
        return err_set(e, ERR_INVALID, "__metadata__ is not an object");
    for (const cJSON *m = j->child; m != NULL; m = m->next)
        if (!cJSON_IsString(m))
            return err_set(e, ERR_INVALID, "__metadata__.%.100s is not a string", m->string);
    return 0;
}

static int entry_order(const void *a, const void *b)
{
    const struct safetensors_entry *x = a, *y = b;

    if (x->begin != y->begin)
        return x->begin < y->begin ? -1 : 1;
    if (x->end != y->end)
        return x->end < y->end ? -1 : 1;
    return strcmp(x->name, y->name);
}

static int entries_parse(const cJSON *root, uint64_t data_bytes, struct safetensors *s,
                         struct err *e)
{
    uint64_t at = 0;
    int members = cJSON_GetArraySize(root);

    if (!cJSON_IsObject(root))
        return err_set(e, ERR_INVALID, "the header is not an object");
    if (members > SAFETENSORS_TENSORS_MAX + 1)
        return err_set(e, ERR_LIMIT, "%d tensors, limit %d", members, SAFETENSORS_TENSORS_MAX);
    s->entry = mem_zalloc((size_t)members, sizeof *s->entry);
    for (const cJSON *j = root->child; j != NULL; j = j->next) {
        if (strcmp(j->string, "__metadata__") == 0) {
            int rc = metadata_check(j, e);
            if (rc != 0)
                return rc;
            continue;
        }
        s->entry[s->n].name = mem_strdup(j->string);
        if (entry_parse(j, &s->entry[s->n++], e) != 0)
            return err_wrap(e, "tensor %.200s", j->string);
    }
    qsort(s->entry, s->n, sizeof *s->entry, entry_order);
    for (size_t i = 0; i < s->n; i++) {
        const struct safetensors_entry *x = &s->entry[i];
        if (x->begin != at)
            return err_set(e, ERR_CORRUPT,
                           "tensor %.200s begins at %llu, the one before ends at %llu: %s", x->name,
                           (unsigned long long)x->begin, (unsigned long long)at,
                           x->begin > at ? "a hole" : "they overlap");
        at = x->end;
    }
    if (at != data_bytes)
        return err_set(e, ERR_CORRUPT, "tensors end at byte %llu of the data, the file has %llu",
                       (unsigned long long)at, (unsigned long long)data_bytes);
    return 0;
}

static int bytes_read(const struct safetensors *s, uint64_t at, size_t n, void *dst, struct err *e)
{
    char *p = dst;

    while (n > 0) {
        ssize_t got = pread(s->fd, p, n, (off_t)at);
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            return err_sys(e, "read");
        if (got == 0)
            return err_set(e, ERR_CORRUPT, "the file ends at byte %llu, %zu bytes early",
                           (unsigned long long)at, n);
        p += got;
        at += (uint64_t)got;
        n -= (size_t)got;
    }
    return 0;
}

static int header_read(struct safetensors *s, struct err *e)
{
    int rc;
    struct stat st;
    unsigned char le[8];
    uint64_t size, n = 0;
    char *text = NULL;
    cJSON *root = NULL;

    if (fstat(s->fd, &st) != 0)
        return err_sys(e, "stat");
    if (!S_ISREG(st.st_mode))
        return err_set(e, ERR_INVALID, "not a regular file");
    size = (uint64_t)st.st_size;
    if (size < 8)
        return err_set(e, ERR_CORRUPT, "%llu bytes are no safetensors file",
                       (unsigned long long)size);
    if ((rc = bytes_read(s, 0, 8, le, e)) != 0)
        return rc;
    for (int i = 7; i >= 0; i--)
        n = n << 8 | le[i];
    if (n > SAFETENSORS_HEADER_MAX)
        return err_set(e, ERR_LIMIT, "header of %llu bytes, limit %u", (unsigned long long)n,
                       SAFETENSORS_HEADER_MAX);
    if (n > size - 8)
        return err_set(e, ERR_CORRUPT, "header of %llu bytes in a file of %llu",
                       (unsigned long long)n, (unsigned long long)size);
    text = mem_alloc(n);
    rc = bytes_read(s, 8, n, text, e);
    if (rc == 0 && (n == 0 || text[0] != '{'))
        rc = err_set(e, ERR_CORRUPT, "the header does not begin with {");
    if (rc == 0)
        rc = json_parse(text, n, LIMITS, &root, e);
    s->data_at = 8 + n;
    if (rc == 0)
        rc = entries_parse(root, size - 8 - n, s, e);
    cJSON_Delete(root);
    free(text);
    return rc;
}

int safetensors_open(const char *path, struct safetensors *out, struct err *e)
{
    int rc;

    *out = (struct safetensors){.path = mem_strdup(path),
                                .fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK)};
    rc = out->fd < 0 ? err_sys(e, "open") : header_read(out, e);
    if (rc != 0) {
        err_wrap(e, "%s", path);
        safetensors_close(out);
    }
    return rc;
}

void safetensors_close(struct safetensors *s)
{
    if (s->path != NULL && s->fd >= 0)
        close(s->fd);
    for (size_t i = 0; i < s->n; i++)
        free(s->entry[i].name);
    free(s->entry);
    free(s->path);
    *s = (struct safetensors){.fd = -1};
}

const struct safetensors_entry *safetensors_find(const struct safetensors *s, const char *name)
{
    for (size_t i = 0; i < s->n; i++)
        if (strcmp(s->entry[i].name, name) == 0)
            return &s->entry[i];
    return NULL;
}

static float from_half(uint16_t h)
{
    uint32_t sign = (uint32_t)(h & 0x8000) << 16, exponent = h >> 10 & 31, fraction = h & 1023;
    uint32_t bits;
    float f;

    if (exponent == 0) {
        f = (float)fraction * 0x1p-24f; /* exact: 10 bits */
        return sign != 0 ? -f : f;
    }
    bits = exponent == 31 ? 0x7f800000u | fraction << 13 : (exponent + 112) << 23 | fraction << 13;
    bits |= sign;
    memcpy(&f, &bits, 4);
    return f;
}

static float widen(enum safetensors_dtype dtype, const unsigned char *p)
{
    uint16_t h;
    uint32_t bits;
    double d;
    float f;

    switch (dtype) {
    case DTYPE_F64:
        memcpy(&d, p, 8);
        return (float)d;
    case DTYPE_F16:
        memcpy(&h, p, 2);
        return from_half(h);
    case DTYPE_BF16:
        memcpy(&h, p, 2);
        bits = (uint32_t)h << 16;
        memcpy(&f, &bits, 4);
        return f;
    default:
        memcpy(&f, p, 4);
        return f;
    }
}

int safetensors_read(const struct safetensors *s, const struct safetensors_entry *x, uint64_t first,
                     size_t n, float *dst, struct err *e)
{
    int rc = 0;
    size_t item = x->dtype == DTYPE_F32 ? 4 : x->dtype == DTYPE_F64 ? 8 : 2;
    size_t step = 262144;
    unsigned char *raw;

    CHECK(x->dtype != DTYPE_BUFFER && first <= x->elements && n <= x->elements - first);
    raw = mem_alloc(step * item);
    for (size_t at = 0; rc == 0 && at < n; at += step) {
        size_t k = n - at < step ? n - at : step;
        rc = bytes_read(s, s->data_at + x->begin + (first + at) * item, k * item, raw, e);
        for (size_t i = 0; rc == 0 && i < k; i++) {
            dst[at + i] = widen(x->dtype, raw + i * item);
            if (!isfinite(dst[at + i]))
                rc = err_set(e, ERR_NUMERIC, "element %llu is not finite",
                             (unsigned long long)(first + at + i));
        }
    }
    free(raw);
    if (rc != 0)
        err_wrap(e, "%s: tensor %s", s->path, x->name);
    return rc;
}
