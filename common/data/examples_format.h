/* examples_format: the bytes of an examples file. Little-endian; a header, then sections at the offsets that it names. */
#ifndef DATA_EXAMPLES_FORMAT_H
#define DATA_EXAMPLES_FORMAT_H

#include <stdint.h>

#include "data/schema.h"

#define EXAMPLES_MAGIC "STEEREX\n"
enum { EXAMPLES_VERSION = 1 };

struct examples_span {
    uint32_t begin, end;
};
enum examples_section {
    SECTION_EXAMPLES, /* struct examples_entry */
    SECTION_PIECES,   /* struct examples_piece */
    SECTION_TARGETS,  /* struct examples_target */
    SECTION_IDS,      /* int32: tokens of the pieces, label tokens behind them */
    SECTION_SCORES,   /* float: `outputs` a target */
    SECTION_LEVELS,   /* int8: `attrs` a label slot */
    SECTIONS
};
struct examples_header {
    char magic[8];
    uint32_t version, vocab, attrs, outputs;
    uint32_t length_max, targets_max;
    uint64_t tokens;
    uint64_t offset[SECTIONS], count[SECTIONS]; /* bytes from the beginning; elements */
    uint32_t levels[SCHEMA_ATTRS_MAX];
    uint32_t label_ids; /* where the label tokens begin in SECTION_IDS; spans count from here */
    struct examples_span open, close, comma;
    struct examples_span key[SCHEMA_ATTRS_MAX], missing[SCHEMA_ATTRS_MAX];
    struct examples_span value[SCHEMA_ATTRS_MAX][SCHEMA_LEVELS_MAX];
    uint32_t reserved;
};
struct examples_entry {
    uint32_t piece_begin, pieces;
    uint32_t target_begin, targets;
    uint32_t length; /* rows with nothing dropped */
    uint32_t learnt; /* targets of the assembled sequence */
};
struct examples_piece {
    uint32_t
        labels; /* 1: a label slot; begin is then its index in SECTION_LEVELS, end is not used */
    uint32_t begin, end;
    float weight;
};
struct examples_target {
    uint32_t row;
    int32_t id, lo, hi;
    uint32_t score; /* index of its first float in SECTION_SCORES */
};

#endif
