/* Names and texts of status codes, and those of our own. */

/* The call came from a thread other than the one that runs the loop, or from a forked child. */
enum { VL_EFOREIGN = -30001 };
/* No thread could be started. */
enum { VL_ENOTHREAD = -30002 };

const char *uv_err_name(int status);
const char *uv_strerror(int status);
const char *uv_version_string(void);
