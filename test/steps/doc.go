// SPDX-License-Identifier: Apache-2.0

// Package steps lets a test act between any two system calls of another process, of those
// that leave something behind: on disk, in the kernel, with another process.
//
// A test's own program is started in the other's place (Wrap). It asks the kernel to tell
// of those calls (seccomp_unotify(2)), and becomes the other by exec, so that the process
// and its descendants stand still at each of them until the Watcher lets them go on.
package steps
