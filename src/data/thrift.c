/* thrift.c - see thrift.h. */
#include "data/thrift.h"

#define MAX_DEPTH 32

void nm_thrift_fail(nm_thrift *t)
{
    t->bad = true;
    t->p = t->end;
}

static unsigned byte(nm_thrift *t)
{
    if (t->p < t->end)
        return *t->p++;
    nm_thrift_fail(t);
    return 0;
}

uint64_t nm_thrift_varint(nm_thrift *t)
{
    uint64_t v = 0;
    for (int shift = 0; shift < 64; shift += 7) {
        unsigned b = byte(t);
        v |= (uint64_t)(b & 127) << shift;
        if (!(b & 128))
            return v;
    }
    nm_thrift_fail(t);
    return 0;
}

nm_thrift_type nm_thrift_field(nm_thrift *t, int *id)
{
    unsigned head = byte(t), type = head & 15;
    if (t->bad || type == NM_TH_STOP)
        return NM_TH_STOP;
    int64_t next = head >> 4 ? *id + (int)(head >> 4) : nm_unzigzag(nm_thrift_varint(t));
    if (type > NM_TH_STRUCT || next < 0 || next > INT16_MAX)
        nm_thrift_fail(t);
    *id = t->bad ? 0 : (int)next;
    return t->bad ? NM_TH_STOP : (nm_thrift_type)type;
}

int64_t nm_thrift_int(nm_thrift *t, nm_thrift_type type)
{
    switch (type) {
    case NM_TH_TRUE: return 1;
    case NM_TH_FALSE: return 0;
    case NM_TH_BYTE: return (int8_t)byte(t);
    case NM_TH_I16:
    case NM_TH_I32:
    case NM_TH_I64: return nm_unzigzag(nm_thrift_varint(t));
    default: nm_thrift_fail(t); return 0;
    }
}

size_t nm_thrift_bytes(nm_thrift *t, nm_thrift_type type, const unsigned char **p)
{
    uint64_t n = type == NM_TH_BINARY ? nm_thrift_varint(t) : 0;
    if (type != NM_TH_BINARY || n > (size_t)(t->end - t->p))
        nm_thrift_fail(t);
    *p = t->p;
    if (t->bad)
        return 0;
    t->p += n;
    return (size_t)n;
}

size_t nm_thrift_list(nm_thrift *t, nm_thrift_type type, nm_thrift_type *element)
{
    unsigned head = byte(t);
    uint64_t n = head >> 4 == 15 ? nm_thrift_varint(t) : head >> 4;
    *element = (nm_thrift_type)(head & 15);
    if ((type != NM_TH_LIST && type != NM_TH_SET) || *element > NM_TH_STRUCT || n > (size_t)(t->end - t->p))
        nm_thrift_fail(t);
    return t->bad ? 0 : (size_t)n;
}

static void skip(nm_thrift *t, nm_thrift_type type, bool in_list, int depth)
{
    const unsigned char *p;
    nm_thrift_type element, value;
    int id = 0;
    if (depth > MAX_DEPTH)
        nm_thrift_fail(t);
    if (t->bad)
        return;
    switch (type) {
    case NM_TH_TRUE:
    case NM_TH_FALSE:
        if (in_list) /* a boolean field has no bytes, a boolean element has one */
            byte(t);
        return;
    case NM_TH_BYTE: byte(t); return;
    case NM_TH_I16:
    case NM_TH_I32:
    case NM_TH_I64: nm_thrift_varint(t); return;
    case NM_TH_DOUBLE:
        if (t->end - t->p < 8)
            nm_thrift_fail(t);
        else
            t->p += 8;
        return;
    case NM_TH_BINARY: nm_thrift_bytes(t, type, &p); return;
    case NM_TH_LIST:
    case NM_TH_SET:
        for (size_t n = nm_thrift_list(t, type, &element); n-- && !t->bad;)
            skip(t, element, true, depth + 1);
        return;
    case NM_TH_MAP: {
        uint64_t n = nm_thrift_varint(t);
        unsigned types = n ? byte(t) : 0;
        element = (nm_thrift_type)(types >> 4);
        value = (nm_thrift_type)(types & 15);
        while (n-- && !t->bad) {
            skip(t, element, true, depth + 1);
            skip(t, value, true, depth + 1);
        }
        return;
    }
    case NM_TH_STRUCT:
        while ((element = nm_thrift_field(t, &id)) != NM_TH_STOP)
            skip(t, element, false, depth + 1);
        return;
    default: nm_thrift_fail(t);
    }
}

void nm_thrift_skip(nm_thrift *t, nm_thrift_type type) { skip(t, type, false, 0); }
