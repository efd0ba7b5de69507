// SPDX-License-Identifier: Apache-2.0

// Package fence bounds whom a socket can be connected to, whoever has it.
//
// A connection is there when the other side has answered. So a socket that is given away has
// a filter (see socket(7)) that drops what comes from behind the fence, and
// that is locked (SO_LOCK_FILTER). It stays for good, also with a socket that is
// disconnected (connect(2), AF_UNSPEC) and connected to another address. What is sent is not
// filtered: datagrams get there, and a connection request does, but no answer comes back. An
// ICMP error does, which the kernel shows to no filter: whether anybody receives datagrams at
// a port behind the fence can be told by it.
//
// The filter is one program that all those sockets share (SO_ATTACH_BPF): one of classic BPF
// would be translated for each socket anew, which takes twice as long as to make a socket.
package fence
