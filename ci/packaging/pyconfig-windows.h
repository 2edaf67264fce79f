/* What Python.h needs to know of 64-bit Windows, within the limited API, where it is the Python of another
 * system that lends its headers to ci/cross. Read ahead of everything: its guard is that of the
 * pyconfig.h beside Python.h, which says what is true of that other system. */
#ifndef Py_PYCONFIG_H
#define Py_PYCONFIG_H
#define Py_CONFIG_H /* the guard of Windows' own */

#define MS_WIN32
#define MS_WIN64
#define MS_WINDOWS
#define Py_ENABLE_SHARED 1
#define HAVE_DECLSPEC_DLL

#define SIZEOF_SHORT 2
#define SIZEOF_INT 4
#define SIZEOF_LONG 4
#define SIZEOF_LONG_LONG 8
#define SIZEOF_FLOAT 4
#define SIZEOF_DOUBLE 8
#define SIZEOF_SIZE_T 8
#define SIZEOF_VOID_P 8
#define SIZEOF_UINTPTR_T 8
#define SIZEOF_TIME_T 8
#define SIZEOF_FPOS_T 8
#define SIZEOF_WCHAR_T 2
#define SIZEOF_PID_T 8
#define ALIGNOF_SIZE_T 8

#define HAVE_ERRNO_H 1
#define HAVE_LONG_LONG 1
#define HAVE_STDDEF_H 1
#define HAVE_SYS_STAT_H 1
#define HAVE_SYS_TYPES_H 1
#define HAVE_WCHAR_H 1
#define WITH_DOC_STRINGS 1

#endif
