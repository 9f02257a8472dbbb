# cmake --install BUILD [--prefix P]: libnoema.so/.a, headers, pkg-config file, the command, its man page and completions.
include(GNUInstallDirs)
install(TARGETS noema_shared noema_static LIBRARY DESTINATION ${CMAKE_INSTALL_LIBDIR} ARCHIVE DESTINATION ${CMAKE_INSTALL_LIBDIR})
install(DIRECTORY include/noema DESTINATION ${CMAKE_INSTALL_INCLUDEDIR} FILES_MATCHING PATTERN "*.h")
configure_file(cmake/noema.pc.in ${CMAKE_CURRENT_BINARY_DIR}/noema.pc @ONLY)
install(FILES ${CMAKE_CURRENT_BINARY_DIR}/noema.pc DESTINATION ${CMAKE_INSTALL_LIBDIR}/pkgconfig)
# The built-in models, where src/models/builtin.c looks for them.
foreach(name noema-mini noema-mini-caption)
  if(EXISTS ${PROJECT_SOURCE_DIR}/models/${name}/open_clip_config.json)
    install(DIRECTORY models/${name} DESTINATION ${CMAKE_INSTALL_DATADIR}/noema)
  endif()
endforeach()
if(TARGET noema)
  install(TARGETS noema RUNTIME DESTINATION ${CMAKE_INSTALL_BINDIR})
  # The man page and the completions are printed by the command itself, from the tables its parser reads.
  set(pages ${CMAKE_CURRENT_BINARY_DIR}/share)
  add_custom_command(TARGET noema POST_BUILD
    COMMAND ${CMAKE_COMMAND} -E make_directory ${pages}
    COMMAND noema manual > ${pages}/noema.1
    COMMAND noema completions bash > ${pages}/noema
    COMMAND noema completions zsh > ${pages}/_noema
    COMMAND noema completions fish > ${pages}/noema.fish)
  install(FILES ${pages}/noema.1 DESTINATION ${CMAKE_INSTALL_MANDIR}/man1)
  install(FILES ${pages}/noema DESTINATION ${CMAKE_INSTALL_DATADIR}/bash-completion/completions)
  install(FILES ${pages}/_noema DESTINATION ${CMAKE_INSTALL_DATADIR}/zsh/site-functions)
  install(FILES ${pages}/noema.fish DESTINATION ${CMAKE_INSTALL_DATADIR}/fish/vendor_completions.d)
endif()
