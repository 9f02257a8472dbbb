/* main.c - the noema command. */
#include <stdio.h>

#include "noema/version.h"

int main(void)
{
    printf("noema %s\n", NOEMA_VERSION_STRING);
    return 1;
}
