// SPDX-License-Identifier: Apache-2.0

// Package fence bounds whom a socket can be connected to, whoever has it.
//
// A connection is there when the other side has answered. So a socket that is given away has
// a filter (SO_ATTACH_FILTER of socket(7)) that drops what comes from behind the fence, and
// that is locked (SO_LOCK_FILTER). It stays for good, also with a socket that is
// disconnected (connect(2), AF_UNSPEC) and connected to another address. What is sent is not
// filtered: datagrams get there, and a connection request does, but nothing is ever heard of
// them.
//
// The kernel translates such a program for each socket anew, which takes longer than to make
// the socket. Who may load programs himself (CAP_BPF of capabilities(7), or CAP_SYS_ADMIN)
// does so once, and has it shared.
package fence
