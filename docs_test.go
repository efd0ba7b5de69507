// SPDX-License-Identifier: Apache-2.0

package sluice_test

import (
	"fmt"
	"go/ast"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// symbolRef is how the docs name code: bridge/input.go:Bridge.Input.
var symbolRef = regexp.MustCompile(`([\w./-]+\.go):([A-Za-z_]\w*(?:\.[A-Za-z_]\w*)?)`)

// declared returns the names of what a file declares at its top level, methods
// as Type.Method.
func declared(f *goFile) []string {
	var names []string
	for _, decl := range f.ast.Decls {
		switch d := decl.(type) {
		case *ast.FuncDecl:
			names = append(names, receiver(d)+d.Name.Name)
		case *ast.GenDecl:
			for _, spec := range d.Specs {
				switch s := spec.(type) {
				case *ast.TypeSpec:
					names = append(names, s.Name.Name)
				case *ast.ValueSpec:
					for _, id := range s.Names {
						names = append(names, id.Name)
					}
				}
			}
		}
	}
	return names
}

// receiver returns "Type." for a method and nothing for a function.
func receiver(fn *ast.FuncDecl) string {
	if fn.Recv == nil || len(fn.Recv.List) == 0 {
		return ""
	}
	t := fn.Recv.List[0].Type
	if star, ok := t.(*ast.StarExpr); ok {
		t = star.X
	}
	switch generic := t.(type) {
	case *ast.IndexExpr:
		t = generic.X
	case *ast.IndexListExpr:
		t = generic.X
	}
	if id, ok := t.(*ast.Ident); ok {
		return id.Name + "."
	}
	return ""
}

// badRefs returns the references in text that lead nowhere, and how many there
// are in all.
func badRefs(text string, symbols map[string][]string) (bad []string, total int) {
	for _, m := range symbolRef.FindAllStringSubmatch(text, -1) {
		total++
		names, known := symbols[m[1]]
		switch {
		case !known:
			bad = append(bad, m[0]+": no such file")
		case !slices.Contains(names, m[2]):
			bad = append(bad, m[0]+": the file doesn't declare it")
		}
	}
	return bad, total
}

// treeSymbols maps each Go file to what it declares.
func treeSymbols(t *testing.T) map[string][]string {
	t.Helper()
	symbols := map[string][]string{}
	for _, f := range goTree(t) {
		symbols[f.path] = declared(f)
	}
	return symbols
}

// TestDocsNameCodeThatExists: a reader who follows a packet through the docs
// must find each step where the docs say it is.
func TestDocsNameCodeThatExists(t *testing.T) {
	symbols := treeSymbols(t)
	atLeast := map[string]int{"docs/packet-path.md": 25, "docs/architecture.md": 5}
	for _, doc := range treeFiles(t, ".md") {
		bad, total := badRefs(readText(t, doc), symbols)
		for _, ref := range bad {
			t.Errorf("%s: %s", doc, ref)
		}
		if total < atLeast[doc] {
			t.Errorf("%s: %d references to code, expected %d at least", doc, total, atLeast[doc])
		}
	}
}

// TestPacketPathFollowsTheFolders: each step of a journey must name code, so
// that none is a story.
func TestPacketPathFollowsTheFolders(t *testing.T) {
	step := regexp.MustCompile(`^\d+\. `)
	for n, line := range strings.Split(readText(t, "docs/packet-path.md"), "\n") {
		if step.MatchString(line) && !symbolRef.MatchString(line) {
			t.Errorf("docs/packet-path.md:%d: a step without file:Func: %s", n+1, line)
		}
	}
}

// mdLink is an inline link; images have the same form.
var mdLink = regexp.MustCompile(`\]\(([^)\s]+)\)`)

// badLink says what is wrong with a relative link in doc, or nothing.
func badLink(doc, link string, read func(string) (string, error)) string {
	if strings.Contains(link, "://") || strings.HasPrefix(link, "mailto:") {
		return ""
	}
	target, anchor, _ := strings.Cut(link, "#")
	file := doc
	if target != "" {
		file = path.Join(path.Dir(doc), target)
	}
	if _, err := os.Stat(filepath.FromSlash(file)); err != nil {
		return "no such file"
	}
	if anchor == "" {
		return ""
	}
	text, err := read(file)
	if err != nil || !slices.Contains(anchors(text), anchor) {
		return "no such heading"
	}
	return ""
}

// anchors returns the anchors of a Markdown text's headings, as forges make them.
func anchors(text string) []string {
	var found []string
	drop := regexp.MustCompile(`[^\w\- ]`)
	for line := range strings.Lines(text) {
		if rest := strings.TrimLeft(line, "#"); rest != line && strings.HasPrefix(rest, " ") {
			slug := drop.ReplaceAllString(strings.ToLower(strings.TrimSpace(rest)), "")
			found = append(found, strings.ReplaceAll(slug, " ", "-"))
		}
	}
	return found
}

func TestLinksLeadSomewhere(t *testing.T) {
	read := func(name string) (string, error) {
		text, err := os.ReadFile(filepath.FromSlash(name))
		return string(text), err
	}
	for _, doc := range treeFiles(t, ".md") {
		for _, m := range mdLink.FindAllStringSubmatch(readText(t, doc), -1) {
			if bad := badLink(doc, m[1], read); bad != "" {
				t.Errorf("%s: link to %s: %s", doc, m[1], bad)
			}
		}
	}
}

// TestEveryDocIsReachable: a page that no other page links to is never read.
func TestEveryDocIsReachable(t *testing.T) {
	linked := map[string]bool{"README.md": true}
	docs := treeFiles(t, ".md")
	for _, doc := range docs {
		for _, m := range mdLink.FindAllStringSubmatch(readText(t, doc), -1) {
			target, _, _ := strings.Cut(m[1], "#")
			linked[path.Join(path.Dir(doc), target)] = true
		}
	}
	for _, doc := range docs {
		if !linked[doc] {
			t.Errorf("%s: nothing links to it", doc)
		}
	}
}

var rfcRef = regexp.MustCompile(`RFCs?[ -]?(\d{1,5})`)

// TestRFCsAreKnown: a number is easily mistyped, and nobody notices. Every RFC
// that the project cites is listed in docs/rfcs.md with its title.
func TestRFCsAreKnown(t *testing.T) {
	const list = "docs/rfcs.md"
	known := []string{}
	for _, m := range rfcRef.FindAllStringSubmatch(readText(t, list), -1) {
		known = append(known, m[1])
	}
	for _, name := range append(treeFiles(t, ".go"), treeFiles(t, ".md")...) {
		if name == list || name == "docs_test.go" {
			continue
		}
		for _, m := range rfcRef.FindAllStringSubmatch(readText(t, name), -1) {
			if !slices.Contains(known, m[1]) {
				t.Errorf("%s: RFC %s is not in %s", name, m[1], list)
			}
		}
	}
}

// TestDropReasonsAreDocumented: what an operator sees in `sluice -s link` can be
// looked up.
func TestDropReasonsAreDocumented(t *testing.T) {
	words := regexp.MustCompile(`"([a-z0-9_]+)",`)
	text := readText(t, "docs/operations.md")
	found := 0
	for _, m := range words.FindAllStringSubmatch(readText(t, "trace/reason.go"), -1) {
		if m[1] == "none" {
			continue
		}
		found++
		if !strings.Contains(text, fmt.Sprintf("| `%s` |", m[1])) {
			t.Errorf("docs/operations.md doesn't explain the drop reason %s", m[1])
		}
	}
	if found < 10 {
		t.Errorf("trace/reason.go: %d reasons found: its table looks different now", found)
	}
}

func TestBadReferencesAreFound(t *testing.T) {
	f, err := parseGo("bridge/input.go", `package bridge
type Bridge struct{}
type Cache[V any] struct{}
func (b *Bridge) Input() {}
func (c *Cache[V]) Lookup() {}
func New() {}
const Max = 1
`)
	if err != nil {
		t.Fatal(err)
	}
	symbols := map[string][]string{f.path: declared(f)}
	for text, want := range map[string]int{
		"`bridge/input.go:New`":              0,
		"`bridge/input.go:Bridge.Input`":     0,
		"`bridge/input.go:Cache.Lookup`":     0,
		"`bridge/input.go:Max`":              0,
		"`bridge/input.go:Input`":            1,
		"`bridge/input.go:Bridge.Output`":    1,
		"`bridge/output.go:New`":             1,
		"see bridge/input.go, line 12: none": 0,
	} {
		if bad, _ := badRefs(text, symbols); len(bad) != want {
			t.Errorf("%s: %q, want %d faults", text, bad, want)
		}
	}
}

func TestBadLinksAreFound(t *testing.T) {
	read := func(string) (string, error) { return "# One\n## Two words, and more\n", nil }
	for link, want := range map[string]string{
		"https://example.org":            "",
		"LICENSE":                        "",
		"README.md#two-words-and-more":   "",
		"README.md#three":                "no such heading",
		"nosuch.md":                      "no such file",
		"docs/../nosuch/file.md#and-how": "no such file",
	} {
		if got := badLink("README.md", link, read); got != want {
			t.Errorf("%s: %q, want %q", link, got, want)
		}
	}
}

// requirement is how docs and tests name what an RFC asks for.
var requirement = regexp.MustCompile(`RFC (\d+)|REQ-(\d+[a-z]?)|(?:§|section )(\d+(?:\.\d+)*)|(?:,|and) (\d+[a-z]?)\b`)

// requirements are those that a text names: "4787 REQ-12a", "7857 §2.2".
func requirements(text string) (all []string) {
	rfc, kind := "", ""
	for _, m := range requirement.FindAllStringSubmatch(text, -1) {
		switch {
		case m[1] != "":
			rfc, kind = m[1], ""
		case rfc == "":
		case m[2] != "":
			kind = "REQ-"
			all = append(all, rfc+" REQ-"+m[2])
		case m[3] != "":
			kind = ""
			all = append(all, rfc+" §"+m[3])
		case kind != "":
			all = append(all, rfc+" "+kind+m[4])
		}
	}
	return all
}

// TestRequirementsAreTested: what the table of requirements on NAT says is shown by a test
// that names the requirement.
func TestRequirementsAreTested(t *testing.T) {
	tested := map[string]bool{}
	for _, name := range treeFiles(t, "_test.go") {
		if name == "docs_test.go" {
			continue
		}
		for line := range strings.Lines(readText(t, name)) {
			for _, r := range requirements(line) {
				tested[r] = true
			}
		}
	}
	rows := 0
	for line := range strings.Lines(readText(t, "docs/decisions/0013-two-profiles-of-nat.md")) {
		name, _, row := strings.Cut(strings.TrimPrefix(line, "| "), ":")
		if !row || !strings.HasPrefix(line, "| RFC ") {
			continue
		}
		rows++
		for _, r := range requirements(name) {
			if !tested[r] {
				t.Errorf("no test names RFC %s", r)
			}
		}
	}
	if rows < 30 {
		t.Errorf("%d requirements", rows)
	}
}

func TestRequirementsAreRead(t *testing.T) {
	got := requirements("RFC 4787 REQ-12, 12a and 13, RFC 5508 REQ-4, 6 and RFC 7857 section 2.2, 14: of 3, and 15")
	want := []string{"4787 REQ-12", "4787 REQ-12a", "4787 REQ-13", "5508 REQ-4", "5508 REQ-6", "7857 §2.2"}
	if !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

// namedPath is a path of the tree in a code span: with a folder that the root has.
var namedPath = regexp.MustCompile("`((?:[a-z][a-z0-9-]*/)+[\\w.-]*)`")

// badPaths are those that the tree doesn't have, of the paths that begin with one of its
// folders; with which one they begin, and are not commands or words of others, is told by there.
func badPaths(text string, there func(string) bool) (bad []string) {
	for _, m := range namedPath.FindAllStringSubmatch(text, -1) {
		top, _, _ := strings.Cut(m[1], "/")
		if there(top) && !there(m[1]) {
			bad = append(bad, m[1])
		}
	}
	return bad
}

// goTestName is a test, benchmark or fuzz target by its name.
var goTestName = regexp.MustCompile(`\b(?:Test|Benchmark|Fuzz)[A-Z]\w+`)

// makeTarget is how a text says that make is to be called.
var makeTarget = regexp.MustCompile("(?m)(?:^ {4}|`|&& )make ([a-z][a-z0-9-]*)")

// TestDocsNameWhatExists: files, tests and targets of make that a text names are there.
func TestDocsNameWhatExists(t *testing.T) {
	there := func(name string) bool {
		_, err := os.Stat(filepath.FromSlash(name))
		return err == nil
	}
	var tests strings.Builder
	for _, name := range treeFiles(t, "_test.go") {
		tests.WriteString(readText(t, name))
	}
	makefile := "\n" + readText(t, "Makefile")
	for _, doc := range treeFiles(t, ".md") {
		text := readText(t, doc)
		for _, p := range badPaths(text, there) {
			t.Errorf("%s: no such file: %s", doc, p)
		}
		for _, name := range goTestName.FindAllString(text, -1) {
			if !strings.Contains(tests.String(), "func "+name) {
				t.Errorf("%s: no such test: %s", doc, name)
			}
		}
		for _, m := range makeTarget.FindAllStringSubmatch(text, -1) {
			if !strings.Contains(makefile, "\n"+m[1]+":") {
				t.Errorf("%s: no such target: make %s", doc, m[1])
			}
		}
	}
}

func TestBadPathsAreFound(t *testing.T) {
	there := func(name string) bool { return slices.Contains([]string{"docs", "docs/cli.md", "bridge"}, name) }
	got := badPaths("`docs/cli.md` `docs/none.md` `bridge/gone/` `kubernetes.io/name` `in/NAMESPACE`", there)
	if !slices.Equal(got, []string{"docs/none.md", "bridge/gone/"}) {
		t.Errorf("got %q", got)
	}
}
