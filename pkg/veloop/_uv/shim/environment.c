/* A copy of this process's environment, for a child that inherits it.
 *
 * It is the C library's environment, as with Popen: os.environ does not know what os.putenv or an
 * extension module has set. Nothing guards it but the GIL, which Python has whenever it changes
 * it. This thread has not, for cffi gives it back before it calls us; so we take it here. A copy
 * is needed since the child reads it later, when other threads run again. */
#include "shim.h"

#if defined(__linux__) && !defined(VL_SYSTEM_LIBUV)

extern char **environ;

/* Python's, of its stable ABI. Weak, for PyPy lacks them. There, and where they are but there is no GIL, the
 * copy is not safe from other threads, and children.py asks for none if there are any. */
int PyGILState_Ensure(void) __attribute__((weak));
void PyGILState_Release(int state) __attribute__((weak));

static char **copy(void) {
  size_t n, i, length, size = 0;
  char **strings, *text;

  for (n = 0; environ != NULL && environ[n] != NULL; n++)
    size += strlen(environ[n]) + 1;
  strings = malloc((n + 1) * sizeof(*strings) + size);
  if (strings == NULL)
    return NULL;
  text = (char *) (strings + n + 1);
  for (i = 0; i < n; i++) {
    length = strlen(environ[i]) + 1;
    strings[i] = memcpy(text, environ[i], length);
    text += length;
  }
  strings[n] = NULL;
  return strings;
}

/* One piece of memory, the caller's to free; NULL if there is none. */
char **vl_environment(void) {
  char **strings;
  int state;

  if (PyGILState_Ensure == NULL || PyGILState_Release == NULL)
    return copy();
  state = PyGILState_Ensure();
  strings = copy();
  PyGILState_Release(state);
  return strings;
}
#else
typedef int vl_no_environment_t; /* a file must not be empty */
#endif
