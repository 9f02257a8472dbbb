/* msgpack.h - MessagePack as JSON, for the index of a flax checkpoint. Binary and extension values stay where they are. */
#ifndef NM_MSGPACK_H
#define NM_MSGPACK_H

#include <jansson.h>
#include <stddef.h>

#include "base/err.h"

/* The one value in data[0..size) as JSON: binaries become {"$bin": [offset, bytes]}, extensions {"$ext": [type, offset, bytes]}, non-string
 * keys of maps their decimal text. Depth, number of values and every length are checked; trailing bytes are refused. NULL with err set. */
json_t *nm_msgpack_parse(const unsigned char *data, size_t size, const char *what, noema_error *err);

#endif
