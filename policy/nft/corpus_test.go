// SPDX-License-Identifier: Apache-2.0

package nft

import (
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

var update = flag.Bool("update", false, "write the expected listings anew")

// testEnv knows the loopback interface.
func testEnv() *Env {
	return &Env{
		IfIndex: func(name string) (uint32, bool) { return 1, name == "lo" },
		IfName:  func(index uint32) (string, bool) { return "lo", index == 1 },
	}
}

// loadText applies a text to a ruleset.
func loadText(rs *Ruleset, text string) (*Ruleset, error) {
	cmds, err := Parse("test.nft", text, nil)
	if err != nil {
		return nil, err
	}
	res, err := rs.Apply(cmds, testEnv())
	if err != nil {
		return nil, err
	}
	return res.Ruleset, nil
}

// must is loadText that has to go well.
func must(t *testing.T, rs *Ruleset, text string) *Ruleset {
	t.Helper()
	next, err := loadText(rs, text)
	if err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	return next
}

func listing(rs *Ruleset, o ListOptions) string {
	var b strings.Builder
	o.Env = testEnv()
	if err := rs.List(&b, &o); err != nil {
		panic(err)
	}
	return b.String()
}

func corpus(t testing.TB) map[string]string {
	t.Helper()
	files, err := filepath.Glob("testdata/corpus/*.nft")
	if err != nil || len(files) == 0 {
		t.Fatal("no corpus", err)
	}
	out := map[string]string{}
	for _, f := range files {
		text, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		out[f] = string(text)
	}
	return out
}

// golden compares with a file, or with -update writes it.
func golden(t *testing.T, file, got string) {
	t.Helper()
	if *update {
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(string(want), got); d != "" {
		t.Errorf("%s (-want +got):\n%s", file, d)
	}
}

func TestCorpusIsListedAsExpected(t *testing.T) {
	for file, text := range corpus(t) {
		t.Run(filepath.Base(file), func(t *testing.T) {
			rs := must(t, &Ruleset{}, text)
			base := strings.TrimSuffix(file, ".nft")
			golden(t, base+".list", listing(rs, ListOptions{Handles: true}))
			golden(t, base+".json", strings.ReplaceAll(string(rs.ListJSON(&ListOptions{Env: testEnv()})), "}, {\"rule", "},\n{\"rule"))
		})
	}
}

// sameTree are the options with which two rulesets from different texts are
// compared: not where something was written.
func sameTree() cmp.Options {
	return cmp.Options{
		cmpopts.IgnoreTypes(Pos{}),
		cmp.AllowUnexported(Elems{}, node{}),
		cmpopts.IgnoreUnexported(Table{}, Chain{}),
		cmpopts.IgnoreFields(Rule{}, "Handle"),
		cmpopts.IgnoreFields(Ruleset{}, "Handles", "Registrations"),
		cmpopts.IgnoreFields(Chain{}, "Registered"),
		cmpopts.IgnoreFields(Quota{}, "Unit"),
		cmpopts.IgnoreFields(Limit{}, "RateUnit", "BurstUnit"),
		cmpopts.IgnoreFields(Set{}, "KeyExpr", "DataExpr", "Orders"),
		cmpopts.EquateEmpty(),
	}
}

func TestAListingIsReadAsTheSameTree(t *testing.T) {
	for file, text := range corpus(t) {
		t.Run(filepath.Base(file), func(t *testing.T) {
			rs := must(t, &Ruleset{}, text)
			again := must(t, &Ruleset{}, listing(rs, ListOptions{}))
			if d := cmp.Diff(rs, again, sameTree()); d != "" {
				t.Errorf("text (-first +second):\n%s", d)
			}
			if d := cmp.Diff(listing(rs, ListOptions{}), listing(again, ListOptions{})); d != "" {
				t.Errorf("listing (-first +second):\n%s", d)
			}
		})
	}
}

func TestJSONIsReadAsTheSameTree(t *testing.T) {
	for file, text := range corpus(t) {
		t.Run(filepath.Base(file), func(t *testing.T) {
			rs := must(t, &Ruleset{}, text)
			cmds, err := ParseJSON(rs.ListJSON(&ListOptions{Env: testEnv()}))
			if err != nil {
				t.Fatal(err)
			}
			res, err := (&Ruleset{}).Apply(cmds, testEnv())
			if err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(listing(rs, ListOptions{}), listing(res.Ruleset, ListOptions{})); d != "" {
				t.Errorf("listing (-text +json):\n%s", d)
			}
			if d := cmp.Diff(rs, res.Ruleset, sameTree()); d != "" {
				t.Errorf("tree (-text +json):\n%s", d)
			}
		})
	}
}

func TestIncludesAndVariables(t *testing.T) {
	files := fstest.MapFS{
		"etc/main.nft":     {Data: []byte("define port = 22\ninclude \"./more.nft\"\ninclude \"./conf.d/*.nft\"\n")},
		"etc/more.nft":     {Data: []byte("define net = 192.0.2.0/24\nadd table t\nadd chain t c\n")},
		"etc/conf.d/b.nft": {Data: []byte("add rule t c tcp dport $port \\\n ip saddr $net \\\n accept # rest\n")},
		"etc/conf.d/a.nft": {Data: []byte("redefine port = { 22, 80 }; add rule t c tcp dport $port drop\n")},
		"etc/loop.nft":     {Data: []byte("include \"./loop.nft\"\n")},
	}
	text, err := files.ReadFile("etc/main.nft")
	if err != nil {
		t.Fatal(err)
	}
	cmds, err := Parse("etc/main.nft", string(text), &Options{FS: files})
	if err != nil {
		t.Fatal(err)
	}
	res, err := (&Ruleset{}).Apply(cmds, nil)
	if err != nil {
		t.Fatal(err)
	}
	want := "table ip t {\n\tchain c {\n\t\ttcp dport { 22, 80 } drop\n\t\ttcp dport { 22, 80 } ip saddr 192.0.2.0/24 accept\n\t}\n}\n"
	if d := cmp.Diff(want, listing(res.Ruleset, ListOptions{})); d != "" {
		t.Error(d)
	}
	_, err = Parse("etc/loop.nft", "include \"./loop.nft\"\n", &Options{FS: files})
	if err == nil || !strings.Contains(err.Error(), "nested too deep") {
		t.Errorf("a file that includes itself: got %v", err)
	}
}
