/* noema/version.h - the release number; the build reads it from here. */
#ifndef NOEMA_VERSION_H
#define NOEMA_VERSION_H

#define NOEMA_VERSION_MAJOR 0
#define NOEMA_VERSION_MINOR 1
#define NOEMA_VERSION_PATCH 0
#define NOEMA_VERSION_STRING "0.1.0"

/* Grows when the API gains something; a program compiled against N runs with any library whose number is >= N. */
#define NOEMA_API_VERSION 1

#endif
