// SPDX-License-Identifier: Apache-2.0

package sluice_test

import (
	"fmt"
	"go/ast"
	"go/token"
	"slices"
	"strings"
	"testing"
)

// Bars on size. The models that this project learned from stay below them;
// what crosses one has two ideas in it, and wants to be two things.
const (
	maxFileLines = 700
	maxFuncLines = 80
)

// spdx is the first line of every Go file.
const spdx = "// SPDX-License-Identifier: Apache-2.0\n\n"

// dataPath are the packages that a packet passes through: no clock in there,
// time is an argument, so that a five-minute timeout is tested in no time.
func dataPath() []string {
	return []string{
		"packet", "flow", "trace", "bridge", "autoconf", "routing", "fragment", "neigh", "conntrack", "qdisc", "router", "nat", "policy", "veth", "netstack",
	}
}

// clockFiles are the files of those packages that may read the clock, each with
// its reason.
func clockFiles() map[string]string {
	return map[string]string{
		"netstack/netstack.go": "the start, and the second that the housekeeping hands to everybody",
		"netstack/clock.go":    "once a round, and only if a port has used up its ration",
		"netstack/idle.go":     "how long to poll and how long it slept, when there is no packet",
	}
}

// fault is one breach of a rule; line 0 speaks of the whole file.
type fault struct {
	line int
	text string
}

// rules are what every Go file is held to.
func rules() map[string]func(*goFile) []fault {
	return map[string]func(*goFile) []fault{
		"licence":   licenceFaults,
		"unsafe":    unsafeFaults,
		"file size": fileSizeFaults,
		"func size": funcSizeFaults,
		"clock":     clockFaults,
		"folder":    folderFaults,
		"get":       getFaults,
	}
}

func TestEveryFileKeepsTheRules(t *testing.T) {
	for _, f := range goTree(t) {
		for name, rule := range rules() {
			for _, bad := range rule(f) {
				t.Errorf("%s:%d: %s: %s", f.path, bad.line, name, bad.text)
			}
		}
	}
}

func licenceFaults(f *goFile) []fault {
	if strings.HasPrefix(string(f.text), spdx) {
		return nil
	}
	return []fault{{1, "must begin with the SPDX line and an empty line"}}
}

// unsafeFaults keeps unsafe where a reviewer looks for it.
func unsafeFaults(f *goFile) []fault {
	stem := strings.TrimSuffix(strings.TrimSuffix(f.base(), ".go"), "_test")
	if !slices.Contains(f.imports(), "unsafe") || strings.HasSuffix(stem, "_unsafe") {
		return nil
	}
	return []fault{{1, "imports unsafe: only files named *_unsafe.go may"}}
}

func fileSizeFaults(f *goFile) []fault {
	if n := strings.Count(string(f.text), "\n"); n >= maxFileLines {
		return []fault{{n, fmt.Sprintf("%d lines, the bar is %d", n, maxFileLines)}}
	}
	return nil
}

func funcSizeFaults(f *goFile) []fault {
	var faults []fault
	for _, decl := range f.ast.Decls {
		fn, ok := decl.(*ast.FuncDecl)
		if !ok {
			continue
		}
		n := f.line(fn.End()) - f.line(fn.Pos()) + 1
		if f.isTest() {
			n -= tableLines(f, fn)
		}
		if n > maxFuncLines {
			faults = append(faults, fault{f.line(fn.Pos()), fmt.Sprintf("%s has %d lines, the bar is %d", fn.Name.Name, n, maxFuncLines)})
		}
	}
	return faults
}

// tableLines counts the lines of the outermost composite literals in a test: a
// table is data, and may be as long as there are cases.
func tableLines(f *goFile, fn *ast.FuncDecl) int {
	lines := 0
	ast.Inspect(fn, func(n ast.Node) bool {
		lit, ok := n.(*ast.CompositeLit)
		if ok {
			lines += f.line(lit.End()) - f.line(lit.Pos())
		}
		return !ok
	})
	return lines
}

func clockFaults(f *goFile) []fault {
	_, excused := clockFiles()[f.path]
	if excused || f.isTest() || !slices.Contains(dataPath(), f.dir()) {
		return nil
	}
	var faults []fault
	ast.Inspect(f.ast, func(n ast.Node) bool {
		sel, ok := n.(*ast.SelectorExpr)
		if !ok {
			return true
		}
		pkg, ok := sel.X.(*ast.Ident)
		if ok && pkg.Name == "time" && slices.Contains([]string{"Now", "Since", "Until"}, sel.Sel.Name) {
			faults = append(faults, fault{f.line(n.Pos()), "time." + sel.Sel.Name + " in the data path: take the time as an argument"})
		}
		return true
	})
	return faults
}

// folderFaults rejects names that mean "the rest": what has no noun has no owner.
func folderFaults(f *goFile) []fault {
	forbidden := []string{
		"util", "utils", "common", "helper", "helpers", "misc", "base", "core",
		"types", "models", "shared", "pkg", "manager", "lib",
	}
	bags := []string{"util.go", "utils.go", "common.go", "helpers.go", "misc.go", "interfaces.go", "constants.go"}
	var faults []fault
	for part := range strings.SplitSeq(f.dir(), "/") {
		if slices.Contains(forbidden, part) {
			faults = append(faults, fault{0, fmt.Sprintf("folder %q: name it by what is in it", part)})
		}
	}
	if slices.Contains(bags, f.base()) {
		faults = append(faults, fault{0, "a bag: keep each thing in the file of its noun"})
	}
	return faults
}

// getFaults rejects the Get prefix, which Go leaves out.
func getFaults(f *goFile) []fault {
	var faults []fault
	for _, decl := range f.ast.Decls {
		fn, ok := decl.(*ast.FuncDecl)
		if !ok {
			continue
		}
		rest, found := strings.CutPrefix(fn.Name.Name, "Get")
		if found && rest != "" && token.IsExported(rest) {
			faults = append(faults, fault{f.line(fn.Pos()), fn.Name.Name + ": leave out Get"})
		}
	}
	return faults
}

// TestEveryPackageIsDocumentedOnce: no package comment leaves the reader alone,
// two of them disagree sooner or later.
func TestEveryPackageIsDocumentedOnce(t *testing.T) {
	docs := map[string][]string{} // folder -> files with a package comment
	onlyTests := map[string]bool{}
	for _, f := range goTree(t) {
		if _, seen := onlyTests[f.dir()]; !seen {
			onlyTests[f.dir()] = true
		}
		if !f.isTest() {
			onlyTests[f.dir()] = false
		}
		if f.ast.Doc != nil {
			docs[f.dir()] = append(docs[f.dir()], f.path)
		}
	}
	for dir, none := range onlyTests {
		files := docs[dir]
		if !none {
			files = slices.DeleteFunc(files, func(s string) bool { return strings.HasSuffix(s, "_test.go") })
		}
		if len(files) != 1 {
			t.Errorf("%s: package comment in %d files %v, want 1", dir, len(files), files)
		}
	}
}

func TestBreachesAreFound(t *testing.T) {
	long := strings.Repeat("\t_ = 0\n", maxFuncLines)
	for name, tc := range map[string]struct {
		file, rule, text string
		want             int
	}{
		"licence there":        {"flow/key.go", "licence", spdx + "package flow\n", 0},
		"licence missing":      {"flow/key.go", "licence", "package flow\n", 1},
		"licence as doc":       {"flow/key.go", "licence", "// SPDX-License-Identifier: Apache-2.0\npackage flow\n", 1},
		"unsafe by name":       {"veth/mmsg_unsafe.go", "unsafe", "package veth\nimport \"unsafe\"\n", 0},
		"unsafe test by name":  {"veth/mmsg_unsafe_test.go", "unsafe", "package veth\nimport \"unsafe\"\n", 0},
		"unsafe elsewhere":     {"veth/batch.go", "unsafe", "package veth\nimport \"unsafe\"\n", 1},
		"short file":           {"flow/key.go", "file size", "package flow\n", 0},
		"long file":            {"flow/key.go", "file size", "package flow\n" + strings.Repeat("\n", maxFileLines), 1},
		"long function":        {"flow/key.go", "func size", "package flow\nfunc f() {\n" + long + "}\n", 1},
		"long test table":      {"flow/key_test.go", "func size", "package flow\nvar _ = 0\nfunc f() { _ = []int{\n" + strings.Repeat("0,\n", maxFuncLines) + "}}\n", 0},
		"clock in the path":    {"bridge/fdb.go", "clock", "package bridge\nimport \"time\"\nvar _ = time.Now()\n", 1},
		"clock by a test":      {"bridge/fdb_test.go", "clock", "package bridge\nimport \"time\"\nvar _ = time.Now()\n", 0},
		"clock in the agent":   {"agent/agent.go", "clock", "package agent\nimport \"time\"\nvar _ = time.Now()\n", 0},
		"a bag for a folder":   {"netstack/utils/x.go", "folder", "package utils\n", 1},
		"a bag for a file":     {"netstack/helpers.go", "folder", "package netstack\n", 1},
		"Get":                  {"flow/key.go", "get", "package flow\nfunc GetKey() {}\n", 1},
		"a word that says get": {"flow/key.go", "get", "package flow\nfunc Getaway() {}\n", 0},
	} {
		t.Run(name, func(t *testing.T) {
			f, err := parseGo(tc.file, tc.text)
			if err != nil {
				t.Fatal(err)
			}
			if got := rules()[tc.rule](f); len(got) != tc.want {
				t.Errorf("got %v, want %d faults", got, tc.want)
			}
		})
	}
}
