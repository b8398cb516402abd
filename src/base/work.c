/* Threads beside the loop. Jobs go in by a locked queue; finished ones come back by an eventfd
 * that the loop watches, so `done` always runs on the loop's thread. */
#include "base/loop.h"

#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <sys/eventfd.h>
#include <unistd.h>

struct job {
	struct job *next;
	void (*run)(void *);
	void (*done)(void *);
	void *arg;
};

struct queue {
	struct job *head, **tail;
};

struct bt_work {
	pthread_mutex_t lock;
	pthread_cond_t wake;
	struct queue todo, finished;
	bool stop;
	int fd, n_threads;
	struct event *event;
	pthread_t threads[];
};

static void push(struct queue *q, struct job *j)
{
	j->next = NULL;
	*q->tail = j;
	q->tail = &j->next;
}

static struct job *pop(struct queue *q)
{
	struct job *j = q->head;
	if (j) {
		q->head = j->next;
		if (!q->head)
			q->tail = &q->head;
	}
	return j;
}

static void *thread_main(void *arg)
{
	struct bt_work *w = arg;
	pthread_mutex_lock(&w->lock);
	for (;;) {
		struct job *j = pop(&w->todo);
		if (!j && w->stop)
			break;
		if (!j) {
			pthread_cond_wait(&w->wake, &w->lock);
			continue;
		}
		pthread_mutex_unlock(&w->lock);
		j->run(j->arg);
		pthread_mutex_lock(&w->lock);
		push(&w->finished, j);
		uint64_t one = 1;
		if (write(w->fd, &one, sizeof one) < 0) {
			/* the counter is full: the loop is awake already */
		}
	}
	pthread_mutex_unlock(&w->lock);
	return NULL;
}

static void on_finished(evutil_socket_t fd, short what, void *arg)
{
	struct bt_work *w = arg;
	uint64_t n;
	(void)what;
	if (read(fd, &n, sizeof n) < 0) {
		/* spurious */
	}
	pthread_mutex_lock(&w->lock);
	struct job *j = w->finished.head;
	w->finished = (struct queue){NULL, &w->finished.head};
	pthread_mutex_unlock(&w->lock);
	while (j) {
		struct job *next = j->next;
		j->done(j->arg);
		free(j);
		j = next;
	}
}

struct bt_work *bt_work_new(struct event_base *base, int n_threads)
{
	struct bt_work *w = bt_calloc(1, sizeof *w + sizeof(pthread_t) * (size_t)n_threads);
	pthread_mutex_init(&w->lock, NULL);
	pthread_cond_init(&w->wake, NULL);
	w->todo.tail = &w->todo.head;
	w->finished.tail = &w->finished.head;
	w->fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	w->event = event_new(base, w->fd, EV_READ | EV_PERSIST, on_finished, w);
	event_add(w->event, NULL);
	sigset_t all, old; /* signals belong to the loop's thread */
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &old);
	for (int i = 0; i < n_threads; i++)
		if (pthread_create(&w->threads[i], NULL, thread_main, w) == 0)
			w->n_threads++;
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	if (w->n_threads == 0)
		abort();
	return w;
}

struct bt_work *bt_work_free(struct bt_work *w)
{
	if (!w)
		return NULL;
	pthread_mutex_lock(&w->lock);
	w->stop = true;
	pthread_cond_broadcast(&w->wake);
	pthread_mutex_unlock(&w->lock);
	for (int i = 0; i < w->n_threads; i++)
		pthread_join(w->threads[i], NULL);
	for (struct job *j; (j = pop(&w->finished));)
		free(j);
	event_free(w->event);
	close(w->fd);
	pthread_mutex_destroy(&w->lock);
	pthread_cond_destroy(&w->wake);
	free(w);
	return NULL;
}

void bt_work_submit(struct bt_work *w, void (*run)(void *), void (*done)(void *), void *arg)
{
	struct job *j = bt_calloc(1, sizeof *j);
	j->run = run;
	j->done = done;
	j->arg = arg;
	pthread_mutex_lock(&w->lock);
	push(&w->todo, j);
	pthread_cond_signal(&w->wake);
	pthread_mutex_unlock(&w->lock);
}
