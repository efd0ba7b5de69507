// SPDX-License-Identifier: Apache-2.0

// Package lab is a small language for tests with real namespaces and the real
// binaries. A test reads like the drawing of its network:
//
//	l := lab.New(t)
//	d := l.Daemon(lab.Blue)
//	red, green := l.NS("red"), l.NS("green")
//	red.Attach("--network", "blue")
//	green.Attach("--network", "blue", "--ip", "10.44.0.9")
//	red.Ping(green.IP(lab.V4))
//	lab.TCP(red, green, lab.V6, 1<<30)
//	d.CLI("detach", red.Name()).Expect(0, "released")
//
// The words are methods that do one thing and end the test if it does not work;
// a word that starts with Try, and CLI, return a Result to be looked at.
//
// A lab owns everything it makes: namespaces (slt-XXXX-name, with four digits
// that are its own, so that labs may run side by side), processes, directories.
// All of it goes when the test ends, however it ends, and then the lab looks
// whether the machine is as it was before.
package lab
