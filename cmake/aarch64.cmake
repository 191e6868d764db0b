# SPDX-License-Identifier: Apache-2.0
# Cross build for arm64 on Debian or Ubuntu; scripts/test-arm64.sh prepares BASALT_SYSROOT (the arm64 libraries, unpacked).
set(CMAKE_SYSTEM_NAME Linux)
set(CMAKE_SYSTEM_PROCESSOR aarch64)
set(CMAKE_C_COMPILER aarch64-linux-gnu-gcc)
set(CMAKE_CXX_COMPILER aarch64-linux-gnu-g++)

set(BASALT_SYSROOT "$ENV{BASALT_SYSROOT}" CACHE PATH "Unpacked arm64 packages")
list(APPEND CMAKE_TRY_COMPILE_PLATFORM_VARIABLES BASALT_SYSROOT)
if(NOT EXISTS "${BASALT_SYSROOT}/usr/include/liburing.h")
  message(FATAL_ERROR "BASALT_SYSROOT does not hold the arm64 packages: run scripts/test-arm64.sh")
endif()

# The C library comes with the cross compiler, everything else from the unpacked packages.
set(library_dir ${BASALT_SYSROOT}/usr/lib/aarch64-linux-gnu)
set(CMAKE_C_FLAGS_INIT "-isystem ${BASALT_SYSROOT}/usr/include -isystem ${BASALT_SYSROOT}/usr/include/aarch64-linux-gnu")
set(CMAKE_CXX_FLAGS_INIT "-isystem ${BASALT_SYSROOT}/usr/include -isystem ${BASALT_SYSROOT}/usr/include/aarch64-linux-gnu")
set(CMAKE_EXE_LINKER_FLAGS_INIT "-L${library_dir} -Wl,-rpath-link,${library_dir}")
set(ENV{PKG_CONFIG_LIBDIR} "${library_dir}/pkgconfig:${BASALT_SYSROOT}/usr/share/pkgconfig")
set(ENV{PKG_CONFIG_SYSROOT_DIR} "${BASALT_SYSROOT}")

set(CMAKE_FIND_ROOT_PATH ${BASALT_SYSROOT} /usr/aarch64-linux-gnu)
set(CMAKE_FIND_ROOT_PATH_MODE_PROGRAM NEVER)
set(CMAKE_FIND_ROOT_PATH_MODE_LIBRARY ONLY)
set(CMAKE_FIND_ROOT_PATH_MODE_INCLUDE ONLY)
