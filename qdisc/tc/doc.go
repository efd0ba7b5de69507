// SPDX-License-Identifier: Apache-2.0

// Package tc is the language of tc(8): it reads the words of tc qdisc, class and
// filter into commands that change a qdisc.Spec, and prints a tree's state as tc
// prints that of a device. It knows text, and no device.
//
//	words -> Parse -> Command -> Apply(Spec) -> Spec
//	Tree.Report -> Qdiscs, Classes, Filters -> text, or JSON as tc -j has it
package tc
