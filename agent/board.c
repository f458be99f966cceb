/* board.c - how far each lane is, in memory that the parent and its workers map. The parent looks four times
 * a second: a line for people while it runs, and the throughput over time for the report.
 */
#include "agent.h"
#include "os/os.h"

#include <inttypes.h>
#include <stdlib.h>
#include <sys/mman.h>

static size_t board_size(const struct job *job)
{
    return sizeof(struct board) + (size_t)job->processes * job->threads * sizeof(struct board_lane);
}

int board_attach(const struct job *job, int fd, struct board **board)
{
    void *p = mmap(NULL, board_size(job), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (p == MAP_FAILED) {
        return err_sys("board");
    }
    *board = p;
    return SHALE_OK;
}

int board_create(const struct job *job, int *fd, struct board **board)
{
    *fd = memfd_create("shale-agent", MFD_CLOEXEC);
    if (*fd < 0 || ftruncate(*fd, (off_t)board_size(job)) != 0) {
        os_close(fd);
        return err_sys("board");
    }
    return board_attach(job, *fd, board);
}

void board_detach(const struct job *job, struct board *board)
{
    if (board != NULL) {
        munmap(board, board_size(job));
    }
}

/* ---- ticks ---- */

static bool room(struct series *s)
{
    if (s->ticks < s->cap) {
        return true;
    }
    size_t cap = s->cap != 0 ? 2 * s->cap : 256;
    uint64_t *ops = realloc(s->ops, cap * SIDES * sizeof *ops);
    if (ops == NULL) {
        return false;
    }
    s->ops = ops;
    s->cap = cap;
    return true;
}

static void line(const struct job *job, const struct series *s)
{
    const uint64_t *now = &s->ops[(s->ticks - 1) * SIDES];
    size_t back = s->ticks > 4 ? 4 : s->ticks - 1; /* a second */
    double per_s = back != 0 ? 1e9 / BOARD_TICK_NS / (double)back : 0;
    const uint64_t *then = now - back * SIDES;
    fprintf(stderr, "\r%s %s: %.1f s, %" PRIu64 " operations; reads %.0f/s, writes %.0f/s\033[K",
            job->driver->name, job->mode, (double)(s->ticks - 1) * BOARD_TICK_NS / 1e9,
            now[READS] + now[WRITES], (double)(now[READS] - then[READS]) * per_s,
            (double)(now[WRITES] - then[WRITES]) * per_s);
}

void board_tick(const struct job *job, const struct board *board, struct series *s)
{
    if (!room(s)) {
        return; /* a picture that ends early; the run goes on */
    }
    uint64_t *now = &s->ops[s->ticks++ * SIDES];
    now[READS] = now[WRITES] = 0;
    for (size_t i = 0; i < (size_t)job->processes * job->threads; i++) {
        for (size_t side = 0; side < SIDES; side++) {
            now[side] += atomic_load_explicit(&board->lanes[i].ops[side], memory_order_relaxed);
        }
    }
    if (job->live) {
        line(job, s);
    }
}

void board_line_end(const struct job *job)
{
    if (job->live) {
        fputs("\r\033[K", stderr);
    }
}
