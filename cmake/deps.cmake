# Libraries: Debian's names are in scripts/packages.txt. A required one that is missing stops the configuration with the
# package to install; an optional one is said to be off.
add_library(noema_deps INTERFACE)

function(noema_need pc package)
  pkg_check_modules(DEP_${pc} QUIET IMPORTED_TARGET ${pc})
  if(NOT DEP_${pc}_FOUND)
    message(FATAL_ERROR "${pc} not found: apt-get install ${package} (or run: make packages)")
  endif()
  target_link_libraries(noema_deps INTERFACE PkgConfig::DEP_${pc})
endfunction()

noema_need(jansson libjansson-dev)
noema_need(zlib zlib1g-dev)
noema_need(libutf8proc libutf8proc-dev)
noema_need(libjpeg libjpeg-dev)
noema_need(libpng libpng-dev)
noema_need(libwebp libwebp-dev)
noema_need(libwebpdemux libwebp-dev)
noema_need(libtiff-4 libtiff-dev)
noema_need(sqlite3 libsqlite3-dev)
noema_need(libcurl libcurl4-openssl-dev)
find_library(GIF_LIB gif)
if(NOT GIF_LIB)
  message(FATAL_ERROR "giflib not found: apt-get install libgif-dev (or run: make packages)")
endif()
target_link_libraries(noema_deps INTERFACE ${GIF_LIB})

# Optional libraries: FEATURE becomes the macro NOEMA_HAVE_FEATURE (1 or 0); without one its use gives a message that names
# the package.
function(noema_want feature pc package)
  pkg_check_modules(DEP_${pc} QUIET IMPORTED_TARGET ${pc})
  if(DEP_${pc}_FOUND)
    target_link_libraries(noema_deps INTERFACE PkgConfig::DEP_${pc})
    target_compile_definitions(noema_deps INTERFACE NOEMA_HAVE_${feature}=1)
    message(STATUS "${feature}: on")
  else()
    target_compile_definitions(noema_deps INTERFACE NOEMA_HAVE_${feature}=0)
    message(STATUS "${feature}: off (${package})")
  endif()
endfunction()

noema_want(AVIF libavif libavif-dev)
noema_want(HEIF libheif libheif-dev)
