"""Variables by which an environment runs code, or decides which code runs, before the application's first line.

`env-from` turns each key of a secret into a variable, after the guest's agent has checked the environment. An account
that may write the secret in Vault could otherwise take over the measured process: by LD_PRELOAD, by PATH, by
NODE_OPTIONS. A variable that its annotation names one by one is the Service author's choice, and is measured where the
pod is.

The list is by program: the dynamic loader and libc, shells, interpreters and virtual machines, and libraries that load
plug-ins. Names are compared as they are written, because the programs do so.
"""

from __future__ import annotations

import re
from typing import Final

_LISTED: Final = (
    # libc and shells
    "PATH GCONV_PATH GETCONF_DIR GLIBC_TUNABLES HOSTALIASES LOCPATH NLSPATH RESOLV_HOST_CONF RES_OPTIONS"
    " BASHOPTS BASH_ENV CDPATH ENV FPATH IFS PROMPT_COMMAND PS4 SHELLOPTS ZDOTDIR"
    # interpreters and virtual machines
    " NODE_EXTRA_CA_CERTS NODE_OPTIONS NODE_PATH NODE_REPL_EXTERNAL_MODULE BUN_OPTIONS"
    " CLASSPATH JAVA_OPTIONS JAVA_OPTS JDK_JAVA_OPTIONS JAVA_TOOL_OPTIONS _JAVA_OPTIONS CATALINA_OPTS GRADLE_OPTS"
    " JVM_OPTS MAVEN_OPTS SBT_OPTS SPARK_SUBMIT_OPTS IBM_JAVA_OPTIONS OPENJ9_JAVA_OPTIONS JRUBY_OPTS"
    " ASPNETCORE_HOSTINGSTARTUPASSEMBLIES GODEBUG GUILE_LOAD_COMPILED_PATH GUILE_LOAD_PATH JULIA_LOAD_PATH"
    " OCAMLRUNPARAM CAMLRUNPARAM CAML_LD_LIBRARY_PATH PHPRC PHP_INI_SCAN_DIR TCLLIBPATH TCL_LIBRARY"
    " R_ENVIRON R_ENVIRON_USER R_HOME R_LIBS R_LIBS_SITE R_LIBS_USER R_PROFILE R_PROFILE_USER"
    # libraries that load plug-ins, and programs that others start
    " OPENSSL_CONF OPENSSL_ENGINES OPENSSL_MODULES SASL_PATH KRB5_CONFIG GSS_USE_PROXY GTK_MODULES GTK_PATH"
    " GIO_EXTRA_MODULES GIO_MODULE_DIR GST_PLUGIN_PATH QT_PLUGIN_PATH MAGICK_CODER_MODULE_PATH"
    " BROWSER EDITOR LESSCLOSE LESSOPEN MANPAGER PAGER VISUAL"
)
_NAMES: Final = frozenset(_LISTED.split())
_FAMILIES: Final = re.compile(
    r"LD_|DYLD_|MALLOC_|BASH_FUNC_|PYTHON|PERL|RUBY|GEM_|BUNDLE_|LUA_|ERL_|ELIXIR_|DOTNET_|CORECLR_|COR_|COMPlus_"
    r"|GIT_|npm_config_|NPM_CONFIG_|DENO_"
)


def runs_code(name: str) -> bool:
    """Whether the dynamic loader, a shell or an interpreter takes code, or the way to it, from this variable."""
    return name in _NAMES or _FAMILIES.match(name) is not None
