/* curves.h - the picture of a run: loss, learning rate, gradient norm and what validation measured over steps, as SVG. */
#ifndef NM_CURVES_H
#define NM_CURVES_H

#include "base/err.h"

/* Reads FOLDER/log.jsonl, writes FOLDER/curves.svg. A run without steps gives no picture. */
noema_status nm_curves_write(const char *folder, noema_error *err);

#endif
