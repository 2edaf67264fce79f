/* The load side of the benchmark. It has to be cheaper than any server it measures, hence C, one
 * thread, edge-triggered epoll (no re-poll of a socket that was just served) and one recv plus one
 * send per message.
 *
 * Each connection sends a message, waits for the whole echo, checks it and sends the next one. A
 * message is printable and ends in its only newline, so the same client drives line-based servers.
 * What else can be asked of a server is in the table of modes.
 *
 * The CPU time of the server (--pid) is read here, next to the message counter, so that both cover
 * the same window: the server needs no cooperation and is not disturbed. Prints one line of JSON.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

enum { STAMP = 16, TAIL = 16, SMALL = 4096, FULL_CHECK_EVERY = 64 };
enum { MAX_EVENTS = 1024, PATIENCE = 3 /* seconds for the last echoes */ };
enum { REPLY = 4096 /* bytes of a whole HTTP response */ };

struct conn {
  int fd;
  unsigned id;
  uint64_t seq;        /* messages started */
  uint64_t sent_at;    /* ns, only kept with --latency */
  size_t sent;         /* of the current message */
  size_t received;     /* of its echo */
  char stamp[STAMP];   /* the first bytes of the message: who sent it, and its number */
  char *reply;         /* mode http: what came of the response */
};

/* What one connection does; new ones go into the table below. */
struct mode {
  const char *name;
  int type;                                /* of its socket */
  int (*start)(struct conn *);             /* once connected; -1: error, drops the connection */
  int (*ready)(struct conn *, uint32_t);   /* epoll says so; same result */
};

struct usage {
  uint64_t clock;                   /* CLOCK_MONOTONIC, ns */
  uint64_t cpu;                     /* CPU time of all threads of the server, ns */
  unsigned long long user, system;  /* its /proc stat ticks: only their proportion is used */
  unsigned long long waited;        /* ns its main thread was ready to run and had no core */
  unsigned long long self_waited;   /* the same of this client: together, how busy the machine is */
};

static struct {
  const char *host, *path;
  int port, connections, latency, pid;
  size_t size;
  double warmup, seconds;
} opt = {.host = "127.0.0.1", .connections = 50, .size = 1024, .warmup = 0.5, .seconds = 2.0};

static int epoll_fd;
static char *message;   /* the text of all messages; a stamp goes over its start before each send */
static char *scratch;   /* all echoes are received here and compared at their offset */
static uint64_t messages, errors;
static int alive;      /* connections */
static int stopping;   /* the window is over: finish what is under way, begin nothing */
static int idle;       /* connections that have done so */

/* Latency histogram: 32 linear steps per power of two, so an error of at most 3 %. */
static uint64_t histogram[64 * 32];

static uint64_t now_ns(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static void die(const char *what) {
  fprintf(stderr, "client: %s: %s\n", what, strerror(errno));
  exit(1);
}

/* --- latency --- */

static void latency_add(uint64_t ns) {
  unsigned shift = ns < 64 ? 0 : 58u - (unsigned)__builtin_clzll(ns);
  unsigned index = shift * 32 + (unsigned)(ns >> shift);
  if (index < sizeof histogram / sizeof *histogram) histogram[index]++;
}

static double latency_us(double share) {
  uint64_t total = 0, seen = 0;
  size_t n = sizeof histogram / sizeof *histogram;
  for (size_t i = 0; i < n; i++) total += histogram[i];
  for (size_t i = 0; i < n; i++) {
    seen += histogram[i];
    if (total && (double)seen >= share * (double)total) {
      unsigned shift = i < 64 ? 0 : (unsigned)i / 32 - 1;
      return (double)((uint64_t)(i - shift * 32) << shift) / 1e3;
    }
  }
  return 0;
}

/* --- mode echo --- */

static int echo_send(struct conn *c) {
  while (c->sent < opt.size) {
    if (c->sent < STAMP) memcpy(message, c->stamp, STAMP);
    ssize_t n = send(c->fd, message + c->sent, opt.size - c->sent, MSG_NOSIGNAL);
    if (n < 0) return errno == EAGAIN ? 0 : -1;   /* EPOLLOUT brings us back */
    c->sent += (size_t)n;
  }
  return 0;
}

static int echo_start(struct conn *c) {
  static const char digits[] = "0123456789abcdef";
  uint64_t number = ((uint64_t)c->id << 48) | (c->seq & 0xffffffffffffu);
  for (int i = 0; i < STAMP; i++) c->stamp[i] = digits[(number >> (60 - 4 * i)) & 15];
  c->seq++;
  c->sent = c->received = 0;
  if (opt.latency) c->sent_at = now_ns();
  return echo_send(c);
}

/* Of a large message, the stamp and the end are always compared, the text between them every 64th
 * time: a lost, doubled or mixed-up message is always seen, and the client stays cheap. */
static int echo_matches(const struct conn *c, size_t n) {
  size_t from = c->received, to = from + n;
  if (from < STAMP) {
    size_t end = to < STAMP ? to : STAMP;
    if (memcmp(scratch, c->stamp + from, end - from) != 0) return 0;
  }
  size_t body = opt.size - TAIL;
  if (opt.size <= SMALL || c->seq % FULL_CHECK_EVERY == 0) body = STAMP;
  if (from > body) body = from;
  return to <= body || memcmp(scratch + (body - from), message + body, to - body) == 0;
}

/* 1: the whole echo is there; 0: not yet. */
static int echo_receive(struct conn *c, uint32_t events) {
  if (c->sent < opt.size && (events & EPOLLOUT) && echo_send(c) < 0) return -1;
  if (!(events & (EPOLLIN | EPOLLHUP | EPOLLERR))) return 0;
  /* One byte more than is missing: an echo that is too long must not pass for a good one. */
  ssize_t n = recv(c->fd, scratch, opt.size - c->received + 1, 0);
  if (n < 0) return errno == EAGAIN ? 0 : -1;
  if (n == 0 || c->received + (size_t)n > opt.size || !echo_matches(c, (size_t)n)) return -1;
  c->received += (size_t)n;
  return c->received == opt.size;   /* else the socket is empty: the next byte is a new edge */
}

/* An operation is complete. 0: it was this connection's last one. */
static int complete(struct conn *c) {
  messages++;
  if (stopping) {
    idle++;
    epoll_ctl(epoll_fd, EPOLL_CTL_DEL, c->fd, NULL);   /* a hang-up may still come, and counts no more */
    return 0;
  }
  if (opt.latency) latency_add(now_ns() - c->sent_at);
  return 1;
}

static int echo_ready(struct conn *c, uint32_t events) {
  int whole = echo_receive(c, events);
  if (whole <= 0) return whole;
  return complete(c) ? echo_start(c) : 0;
}

/* --- mode connect: a connection per message, closed by the server after its echo --- */

static void open_connection(struct conn *c, int type);

static int connect_ready(struct conn *c, uint32_t events) {
  if (c->received < opt.size) {
    int whole = echo_receive(c, events);
    if (whole <= 0) return whole;
  }
  char byte;
  ssize_t n = recv(c->fd, &byte, 1, 0);
  if (n < 0) return errno == EAGAIN ? 0 : -1;
  if (n > 0) return -1;
  if (!complete(c)) return 0;
  close(c->fd);
  open_connection(c, SOCK_STREAM);
  return echo_start(c);
}

/* --- mode http: GET / over a connection that is kept alive --- */

static const char request[] = "GET / HTTP/1.1\r\nHost: localhost\r\nAccept: */*\r\n\r\n";
static const char answer[] = "Hello, world!";

static int http_start(struct conn *c) {
  if (!c->reply && !(c->reply = malloc(REPLY + 1))) die("memory");
  c->received = 0;
  if (opt.latency) c->sent_at = now_ns();
  /* Small enough for an empty send buffer: a partial send is an error. */
  return send(c->fd, request, sizeof request - 1, MSG_NOSIGNAL) == sizeof request - 1 ? 0 : -1;
}

static int http_ready(struct conn *c, uint32_t events) {
  static const char status[] = "HTTP/1.1 200 ", length[] = "\r\ncontent-length:";
  if (!(events & (EPOLLIN | EPOLLHUP | EPOLLERR))) return 0;
  ssize_t n = recv(c->fd, c->reply + c->received, REPLY - c->received, 0);
  if (n < 0) return errno == EAGAIN ? 0 : -1;
  if (n == 0) return -1;
  c->received += (size_t)n;
  c->reply[c->received] = 0;
  char *body = strstr(c->reply, "\r\n\r\n");
  if (!body) return c->received < REPLY ? 0 : -1;
  body += 4;
  if (strncmp(c->reply, status, sizeof status - 1) != 0) return -1;
  char *field = strcasestr(c->reply, length);
  if (!field || strtoul(field + sizeof length - 1, NULL, 10) != sizeof answer - 1) return -1;
  size_t got = c->received - (size_t)(body - c->reply);
  if (got < sizeof answer - 1) return 0;
  if (got > sizeof answer - 1 || memcmp(body, answer, got) != 0) return -1;
  return complete(c) ? http_start(c) : 0;
}

static const struct mode modes[] = {
    {"echo", SOCK_STREAM, echo_start, echo_ready},
    {"udp", SOCK_DGRAM, echo_start, echo_ready},   /* a datagram that is lost ends the run as stuck */
    {"connect", SOCK_STREAM, echo_start, connect_ready},
    {"http", SOCK_STREAM, http_start, http_ready},
};

/* --- the server's CPU time --- */

static void proc_read(int pid, const char *name, char *text, size_t size) {
  char path[64];
  snprintf(path, sizeof path, "/proc/%d/%s", pid, name);
  int fd = open(path, O_RDONLY);
  ssize_t n = fd < 0 ? -1 : read(fd, text, size - 1);
  if (fd >= 0) close(fd);
  text[n > 0 ? n : 0] = 0;
}

static struct usage usage_read(void) {
  struct usage u = {.clock = now_ns()};
  if (!opt.pid) return u;
  clockid_t clock;
  struct timespec t;
  int err = clock_getcpuclockid(opt.pid, &clock);
  if (err) errno = err;
  if (err || clock_gettime(clock, &t) < 0) die("CPU clock of the server");
  u.cpu = (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
  char text[1024];
  proc_read(opt.pid, "stat", text, sizeof text);
  char *after_name = strrchr(text, ')');   /* the name may contain blanks and brackets */
  if (after_name)
    sscanf(after_name + 1, " %*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %llu %llu", &u.user,
           &u.system);
  proc_read(opt.pid, "schedstat", text, sizeof text);
  sscanf(text, "%*u %llu", &u.waited);
  proc_read(getpid(), "schedstat", text, sizeof text);
  sscanf(text, "%*u %llu", &u.self_waited);
  return u;
}

/* --- the run --- */

static int connect_inet(int type) {
  struct sockaddr_in addr = {.sin_family = AF_INET, .sin_port = htons((uint16_t)opt.port)};
  if (inet_pton(AF_INET, opt.host, &addr.sin_addr) != 1) die("--host is no IPv4 address");
  int one = 1, fd = socket(AF_INET, type | SOCK_CLOEXEC, 0);
  if (fd < 0 || connect(fd, (struct sockaddr *)&addr, sizeof addr) < 0) die("connect");
  if (type == SOCK_STREAM) setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
  return fd;
}

static int connect_unix(void) {
  struct sockaddr_un addr = {.sun_family = AF_UNIX};
  if (strlen(opt.path) >= sizeof addr.sun_path) die("--path is too long");
  strcpy(addr.sun_path, opt.path);
  int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (fd < 0 || connect(fd, (struct sockaddr *)&addr, sizeof addr) < 0) die("connect");
  return fd;
}

static void open_connection(struct conn *c, int type) {
  c->fd = opt.path ? connect_unix() : connect_inet(type);
  if (fcntl(c->fd, F_SETFL, fcntl(c->fd, F_GETFL) | O_NONBLOCK) < 0) die("fcntl");
  struct epoll_event e = {.events = EPOLLIN | EPOLLOUT | EPOLLET, .data.ptr = c};
  if (epoll_ctl(epoll_fd, EPOLL_CTL_ADD, c->fd, &e) < 0) die("epoll_ctl");
}

static void drop(struct conn *c) {
  if (c->fd < 0) return;
  errors++;
  close(c->fd);
  c->fd = -1;
  alive--;
}

static void serve_until(const struct mode *mode, uint64_t end) {
  static struct epoll_event events[MAX_EVENTS];
  while (alive > idle && now_ns() < end) {
    int n = epoll_wait(epoll_fd, events, MAX_EVENTS, 50);   /* 50 ms: a server may be stuck */
    if (n < 0 && errno != EINTR) die("epoll_wait");
    for (int i = 0; i < n; i++) {
      struct conn *c = events[i].data.ptr;
      if (c->fd >= 0 && mode->ready(c, events[i].events) < 0) drop(c);
    }
  }
}

static const struct mode *parse(int argc, char **argv) {
  static const struct option names[] = {
      {"host", 1, 0, 'h'},   {"port", 1, 0, 'p'},    {"connections", 1, 0, 'c'},
      {"size", 1, 0, 's'},   {"warmup", 1, 0, 'w'},  {"seconds", 1, 0, 't'},
      {"pid", 1, 0, 'i'},    {"latency", 0, 0, 'l'}, {"mode", 1, 0, 'm'},
      {"path", 1, 0, 'u'},   {0, 0, 0, 0}};
  const char *wanted = "echo";
  for (int key; (key = getopt_long(argc, argv, "", names, NULL)) != -1;) {
    switch (key) {
      case 'h': opt.host = optarg; break;
      case 'p': opt.port = atoi(optarg); break;
      case 'c': opt.connections = atoi(optarg); break;
      case 's': opt.size = (size_t)atol(optarg); break;
      case 'w': opt.warmup = atof(optarg); break;
      case 't': opt.seconds = atof(optarg); break;
      case 'i': opt.pid = atoi(optarg); break;
      case 'l': opt.latency = 1; break;
      case 'm': wanted = optarg; break;
      case 'u': opt.path = optarg; break;
      default: exit(2);
    }
  }
  errno = EINVAL;
  if (!opt.path && opt.port < 1) die("--port or --path");
  if (opt.port < 0 || opt.port > 65535) die("--port");
  if (opt.connections < 1 || opt.connections > 65535) die("--connections");
  if (opt.size < STAMP + 1 || opt.size > 1 << 30) die("--size (at least 17 bytes)");
  for (size_t i = 0; i < sizeof modes / sizeof *modes; i++)
    if (strcmp(modes[i].name, wanted) == 0) return &modes[i];
  die("--mode");
  return NULL;
}

int main(int argc, char **argv) {
  const struct mode *mode = parse(argc, argv);
  message = malloc(opt.size);
  scratch = malloc(opt.size + 1);
  struct conn *conns = calloc((size_t)opt.connections, sizeof *conns);
  epoll_fd = epoll_create1(EPOLL_CLOEXEC);
  if (!message || !scratch || !conns || epoll_fd < 0) die("setup");
  for (size_t i = 0; i < opt.size; i++) message[i] = (char)('a' + (i * 2654435761u >> 16) % 26);
  message[opt.size - 1] = '\n';

  alive = opt.connections;
  for (int i = 0; i < opt.connections; i++) {
    struct conn *c = &conns[i];
    c->id = (unsigned)i;
    open_connection(c, mode->type);
  }
  for (int i = 0; i < opt.connections; i++)
    if (mode->start(&conns[i]) < 0) drop(&conns[i]);

  serve_until(mode, now_ns() + (uint64_t)(opt.warmup * 1e9));
  memset(histogram, 0, sizeof histogram);
  messages = 0;
  struct usage a = usage_read();
  serve_until(mode, a.clock + (uint64_t)(opt.seconds * 1e9));
  struct usage b = usage_read();
  /* An echo that never becomes whole would only show as a little less throughput. */
  uint64_t counted = messages;
  stopping = 1;
  serve_until(mode, b.clock + PATIENCE * 1000000000ull);

  printf("{\"messages\": %llu, \"seconds\": %.9f, \"errors\": %llu, \"stuck\": %d",
         (unsigned long long)counted, (double)(b.clock - a.clock) / 1e9,
         (unsigned long long)errors, alive - idle);
  if (opt.pid)
    printf(", \"cpu_ns\": %llu, \"user_ticks\": %llu, \"system_ticks\": %llu, "
           "\"waited_ns\": %llu, \"client_waited_ns\": %llu",
           (unsigned long long)(b.cpu - a.cpu), b.user - a.user, b.system - a.system,
           b.waited - a.waited, b.self_waited - a.self_waited);
  if (opt.latency)
    printf(", \"p50_us\": %.2f, \"p99_us\": %.2f", latency_us(0.50), latency_us(0.99));
  puts("}");
  return 0;
}
