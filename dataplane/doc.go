// SPDX-License-Identifier: Apache-2.0

// Package dataplane is the sandboxed process that owns the packets, and both
// ends of the control socket between it and its agent.
//
//	agent (Client)                                  dataplane (Main)
//	  Start: clone, new namespaces  ------------->  stage 1: give up all rights
//	                                                  | execve
//	                                <-- loaded ---  stage 2
//	  empty its root directory
//	                                --- begin ---->  seccomp; netstack.New
//	  publish the path              --- free ---->  outlives this agent
//	  Apply: sockets, snapshot      ------------->  netstack.Apply
//	                                <--- events --   log lines, ports that are down
//	  Close, or kill -9                             goes on forwarding
//	  Connect: another agent        --- hello ---->  the old connection ends
//	                                <- inventory --  snapshot, dups of all sockets
//
// # What the process may do
//
// It reads the bytes of hostile containers, so it is assumed that one of them
// takes it over some day. What he finds there: an own network namespace with
// nothing in it, an own PID namespace with nobody in it, an empty read-only root
// directory, a user of its own (DefaultUID), no capability and no way to one, no core dump, no
// program to execute, no system call that takes a path or makes a socket
// (seccomp.go), and these fds: the containers' packet sockets, which he owns by
// then, the counters, the table of connections, the control sockets, epoll and eventfds, /dev/null, and a
// file to append the last words of the Go runtime to. He can't bind a socket to another interface and
// can't send a signal to anybody, and nobody but root to him.
//
// # What the agent believes it
//
// Nothing. See Client.
//
// # Life and death
//
// The process does not end with its agent, from the moment that it can be found at
// its path and was told so (kindFree); nor before it was told that it is being
// replaced (kindTie). In between it ends with its agent's connection. It has a session and a PID namespace
// of its own, so that neither a terminal nor an init process ends it by mistake;
// a service manager must be told to leave it alone (systemd: KillMode=process).
// SIGTERM ends it in good order. Logs travel as events over the control
// connection and wait there for the next agent; a panic goes to
// StartConfig.Stderr. It listens on a socket that the agent bound, and serves one
// agent at a time: the newest.
//
// When it dies, the next process gets the same sockets and the same snapshot from
// the agent, which keeps dups of all. What containers sent meanwhile waits in the
// sockets. From kill -9 to the first forwarded frame it takes about 14 ms on two
// cores (TestKilledAndStartedAgain measures it), most of that to load the program
// twice; or 4 ms, if the next process is a spare that has been started already
// (spare.go, TestSpareTakesOver). A spare waits some seconds for another agent if its own
// is gone. Connections are in a file that the next process opens. While two live, in
// a hand-over, each has a file of its own: the new one a copy (takeover.configure).
//
// # Files
//
// In the order of a process's life: start.go and stage.go (agent's and process's
// half of a start), spare.go, program.go, emptyroot.go, seccomp.go, server.go, session.go, queries.go,
// events.go; the agent's half of a connection is client.go, call.go and
// adopt.go; both halves use message.go and conn.go. What there is to ask about
// connections, and how they get from process to process, is in connections.go.
package dataplane
