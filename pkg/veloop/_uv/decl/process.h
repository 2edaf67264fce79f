/* What the child shall be, in the terms of subprocess.Popen. Arrays of strings end with NULL. */
typedef struct {
  char **paths;      /* the programs to try, in this order */
  char **argv;
  char **env;        /* NULL: this process's */
  const char *cwd;   /* NULL: this process's */
  int stdio[3];      /* what the child has as 0, 1, 2; -1: what this process has */
  int close_fds;     /* everything else, but for pass_fds */
  int *pass_fds;
  int passed;        /* how many */
  int restore_signals;
  int new_session;
  int process_group; /* -1: this process's */
  int umask;         /* -1: this process's */
} vl_spawn_t;

/* Where a spawn failed. */
enum {
  VL_SPAWN_NOT_BEGUN = 0, /* there was no child */
  VL_SPAWN_CHDIR,         /* in the child, going to cwd */
  VL_SPAWN_PREPARE,       /* in the child, anything else before exec */
  VL_SPAWN_EXEC
};

/* Whether this build, on this system, can start a child as Popen does: if not, Popen has to. */
int vl_process_can_spawn(void);

/* Starts a child; returns when exec has worked or failed. -> the pid, or a status and *stage. */
int64_t vl_process_spawn(vl_loop_t *loop, const vl_spawn_t *what, int *stage);
