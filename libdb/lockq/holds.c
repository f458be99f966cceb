/* holds.c - which thread of this process holds the write lock of a directory over several calls: a
 * transaction, or a held lock of the queue. The same thread writing another way would wait for itself for
 * ever: it gets SHALE_INUSE instead.
 *
 * WRITE is exclusive, so a directory (device and inode of its LOCK) has one holder at a time. What is held
 * may move to another thread: whoever uses it last counts. A forked child holds nothing. The common case,
 * nobody holds anything, is one load.
 */
#include "lockq/queue.h"

#define MOST_HOLDS 64

struct hold {
    dev_t dev;
    ino_t ino;
    pthread_t thread;
    bool used;
};

/* Under the module's mutex, which is the one that nobody holds across a fork. */
static struct hold holds[MOST_HOLDS];
static _Atomic unsigned holds_used;

static struct hold *find(dev_t dev, ino_t ino)
{
    for (size_t i = 0; i < MOST_HOLDS; i++) {
        if (holds[i].used && holds[i].ino == ino && holds[i].dev == dev) {
            return &holds[i];
        }
    }
    return NULL;
}

void lockq_thread_hold(dev_t dev, ino_t ino)
{
    lockq_enter();
    struct hold *h = find(dev, ino);
    for (size_t i = 0; h == NULL && i < MOST_HOLDS; i++) {
        if (!holds[i].used) {
            h = &holds[i];
            *h = (struct hold){.dev = dev, .ino = ino, .used = true};
            atomic_fetch_add_explicit(&holds_used, 1, memory_order_release);
        }
    }
    if (h != NULL) { /* a 65th database held at once goes unwatched */
        h->thread = pthread_self();
    }
    lockq_leave();
}

void lockq_thread_drop(dev_t dev, ino_t ino)
{
    lockq_enter();
    struct hold *h = find(dev, ino);
    if (h != NULL) {
        h->used = false;
        atomic_fetch_sub_explicit(&holds_used, 1, memory_order_release);
    }
    lockq_leave();
}

void lockq_threads_forked(void)
{
    memset(holds, 0, sizeof holds);
    atomic_store(&holds_used, 0);
}

bool lockq_thread_holds(dev_t dev, ino_t ino)
{
    bool mine = false;
    if (atomic_load_explicit(&holds_used, memory_order_acquire) != 0) {
        lockq_enter();
        struct hold *h = find(dev, ino);
        mine = h != NULL && pthread_equal(h->thread, pthread_self());
        lockq_leave();
    }
    return mine || lockq_thread_acquired(dev, ino, OS_BYTE_WRITE);
}
