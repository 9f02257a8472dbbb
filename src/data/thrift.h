/* thrift.h - Apache Thrift's compact protocol, reading only: what Parquet's footer and page headers are written in.
 * Source: thrift/doc/specs/thrift-compact-protocol.md. The first error sticks: everything after it reads as zero or empty. */
#ifndef NM_THRIFT_H
#define NM_THRIFT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef enum nm_thrift_type {
    NM_TH_STOP, NM_TH_TRUE, NM_TH_FALSE, NM_TH_BYTE, NM_TH_I16, NM_TH_I32, NM_TH_I64, NM_TH_DOUBLE, NM_TH_BINARY, NM_TH_LIST, NM_TH_SET, NM_TH_MAP,
    NM_TH_STRUCT
} nm_thrift_type;

typedef struct nm_thrift { const unsigned char *p, *end; bool bad; } nm_thrift;

/* The next field of a struct: its type, NM_TH_STOP at the end (or after an error). *id holds the last field's number; 0 before the first. */
nm_thrift_type nm_thrift_field(nm_thrift *t, int *id);
int64_t nm_thrift_int(nm_thrift *t, nm_thrift_type type);          /* BYTE, I16, I32, I64, TRUE, FALSE; another type is an error */
size_t nm_thrift_bytes(nm_thrift *t, nm_thrift_type type, const unsigned char **p); /* BINARY: points into the input */
/* LIST or SET: the number of elements, never more than there are bytes left; *element is their type. */
size_t nm_thrift_list(nm_thrift *t, nm_thrift_type type, nm_thrift_type *element);
void nm_thrift_skip(nm_thrift *t, nm_thrift_type type);
void nm_thrift_fail(nm_thrift *t);

uint64_t nm_thrift_varint(nm_thrift *t); /* ULEB128, as Parquet's encodings use it too */
static inline int64_t nm_unzigzag(uint64_t v) { return (int64_t)(v >> 1) ^ -(int64_t)(v & 1); }

#endif
