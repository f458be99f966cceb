/* arena.h - what stands in a .mem file, and how to get at it without trusting it.
 *
 *   0         64             144      192        4096                             end               size
 *   | header  | writer's own | tower  | the head | towers, nodes and versions ... | never used yet |
 *
 * A reference counts units of 8 bytes from the start of the file: 32 bits reach 32 GiB, and nothing that it
 * can name is misaligned. 0 is none. A node's links stand below it, level 0 next to it:
 *
 *      ... next[2] next[1] next[0] | key head (16 bytes) | seq and height | entry | versions |
 *                                  ^ reference
 *
 * so that a search, which reads one link and the key head of a node, mostly touches one cache line of it.
 *
 * The first version of a key is in the node. Later ones are a chain, newest first: node.versions -> version
 * -> ... -> 0, and 0 stands for the one in the node. Each has a jump pointer besides (mem/chain.c). Since the
 * arena only grows, an older version always has a lower reference: a walk that insists on that ends, whatever
 * the bytes are.
 */
#ifndef MEM_ARENA_H
#define MEM_ARENA_H

#include "mem/mem.h"

#include <stddef.h>

#define MEM_MAGIC       UINT64_C(0x316d656d6c656873) /* "shelmem1", little-endian */
#define MEM_FORMAT      1
#define MEM_LEVELS      12 /* at one in four: enough for 4^12 keys */
#define MEM_UNIT        8u
#define MEM_FIRST       4096u /* where the arena begins */
#define MEM_HEAD_OFFSET 192u
#define MEM_HEAD        (MEM_HEAD_OFFSET / MEM_UNIT)
#define MEM_SIZE_MAX    (UINT64_C(1) << 35)

struct mem_header {
    uint64_t magic;
    uint32_t format;
    uint32_t number;
    uint64_t salt;     /* of the segment: ties the index to this very log */
    uint64_t size;     /* of the file */
    uint64_t checksum; /* of the 32 bytes before */
    unsigned char zero[24];
    /* the writer's own cache line; under WRITE */
    _Atomic uint32_t end; /* [I-16] in units; nothing of ours stands at or above it */
    uint32_t zero2;
    _Atomic uint64_t entries, keys;
};
_Static_assert(sizeof(struct mem_header) == 88, "doc/format says 88");
_Static_assert(offsetof(struct mem_header, checksum) == 32, "doc/format says 32");
_Static_assert(offsetof(struct mem_header, end) == 64, "doc/format: a cache line of its own");
_Static_assert(sizeof(struct mem_header) <= MEM_HEAD_OFFSET - 4 * MEM_LEVELS,
               "the head's tower is behind the header");

struct mem_node {
    uint64_t head[2];          /* the key's first 16 bytes as two big-endian integers, zero padded */
    uint64_t seq_height;       /* seq << 8 | height, of the first version */
    uint32_t entry;            /* where it stands in the segment */
    _Atomic uint32_t versions; /* the newest of the chain; 0: there is but the first */
};
_Static_assert(sizeof(struct mem_node) == 32, "doc/format says 32");

struct mem_version {
    uint64_t seq;
    uint32_t entry;
    uint32_t prev;  /* the next older one */
    uint32_t jump;  /* one further back */
    uint32_t depth; /* how many are older: at least 1 */
};
_Static_assert(sizeof(struct mem_version) == 24, "doc/format says 24");

/* A key as a search carries it: comparing heads decides mostly. */
struct mem_key {
    uint64_t head[2];
    struct slice bytes;
};

static inline struct mem_key mem_key_make(struct slice key)
{
    struct slice rest = key.size > 8 ? slice_make(key.data + 8, key.size - 8) : slice_make(NULL, 0);
    return (struct mem_key){{key_head(key), key_head(rest)}, key};
}

static inline struct mem_header *mem_header(const struct mem_index *m)
{
    return (struct mem_header *)(void *)m->arena;
}

/* NULL: no node can stand there. Any reference that passes may be read at every level below MEM_LEVELS: what
 * lies under the first node is page 0. */
static inline struct mem_node *mem_node_at(const struct mem_index *m, uint32_t ref)
{
    const uint32_t first = MEM_FIRST / MEM_UNIT;
    if (BASE_UNLIKELY(ref - first > m->last_node - first)) {
        return NULL;
    }
    return (struct mem_node *)(void *)(m->arena + (uint64_t)ref * MEM_UNIT);
}

static inline struct mem_version *mem_version_at(const struct mem_index *m, uint32_t ref)
{
    return (struct mem_version *)(void *)mem_node_at(m, ref);
}

/* The link at a level of a node that mem_node_at accepted, or of the head. */
static inline _Atomic uint32_t *mem_link(const struct mem_index *m, uint32_t ref, unsigned level)
{
    return (_Atomic uint32_t *)(void *)(m->arena + (uint64_t)ref * MEM_UNIT - 4 * (uint64_t)(level + 1));
}

/* Acquire: the node behind the link was complete when the link was stored [I-16]. */
static inline uint32_t mem_next(const struct mem_index *m, uint32_t ref, unsigned level)
{
    return atomic_load_explicit(mem_link(m, ref, level), memory_order_acquire);
}

/* A hint: the reference may be anything. */
static inline void mem_prefetch(const struct mem_index *m, uint32_t ref)
{
    __builtin_prefetch((const void *)((uintptr_t)m->arena + (uintptr_t)ref * MEM_UNIT));
}

/* The log's bytes; false where none can stand. */
static inline bool mem_entry_at(const struct mem_index *m, uint32_t offset, struct wal_entry *e)
{
    const struct wal_segment *s = m->seg;
    return offset >= WAL_FIRST && offset < s->size && wal_decode_entry(s->map + offset, s->map + s->size, e);
}

/* SHALE_CORRUPT, "000012.mem: WHAT at WHERE". */
int mem_damaged(const struct mem_index *m, const char *what, uint64_t where);

/* ---- search.c ---- */

struct mem_search {
    const struct mem_index *mem;
    struct mem_key key;
    uint64_t steps; /* left: noise may hold a cycle */
    bool damaged;   /* a reference, a log offset or the number of steps was out of bounds */
};
void mem_search_start(struct mem_search *s, const struct mem_index *m, struct slice key);
/* The node's key against the searched one where their heads are equal: <0, 0, >0. */
int mem_compare_tails(struct mem_search *s, const struct mem_node *n);
/* The first node >= key (0: none). *equal: its key is the searched one. *before: a node < key; with exact it
 * is the last such, without it the search ends at once where it meets the key. */
uint32_t mem_search_run(struct mem_search *s, bool exact, bool *equal, uint32_t *before);
/* The last node of all; MEM_HEAD when there is none. */
uint32_t mem_search_last(struct mem_search *s);

/* The node's key against the searched one: <0, 0, >0. */
static inline int mem_compare(struct mem_search *s, const struct mem_node *n)
{
    if (BASE_LIKELY(n->head[0] != s->key.head[0])) {
        return n->head[0] < s->key.head[0] ? -1 : 1;
    }
    if (n->head[1] != s->key.head[1]) {
        return n->head[1] < s->key.head[1] ? -1 : 1;
    }
    return mem_compare_tails(s, n);
}

/* ---- chain.c ---- */

/* The newest version of the node with a sequence number <= seq: SHALE_OK, SHALE_NOTFOUND, SHALE_CORRUPT. */
int mem_chain_find(const struct mem_index *m, const struct mem_node *n, uint64_t seq, uint64_t *found,
                   uint32_t *entry);
/* Fills in a version that is to stand in front of the chain (all but seq and entry). */
int mem_chain_prepare(const struct mem_index *m, const struct mem_node *n, struct mem_version *v);

#endif
