/* insert.h - what opening an index for writing needs of the writer's side. */
#ifndef MEM_INSERT_H
#define MEM_INSERT_H

#include "mem/arena.h"

/* An empty one; NULL without memory. free() releases it. */
struct mem_splice *mem_splice_make(void);

#endif
