// SPDX-License-Identifier: Apache-2.0

package sluice_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// goFile is one Go file of the repository, as the rules in this folder see it.
type goFile struct {
	path string // from the root, with slashes
	text []byte
	fset *token.FileSet
	ast  *ast.File
}

// parseGo parses one file given as text, so that a rule can be tried on a bad
// example as well as on the tree.
func parseGo(name, text string) (*goFile, error) {
	fset := token.NewFileSet()
	file, err := parser.ParseFile(fset, name, text, parser.ParseComments|parser.SkipObjectResolution)
	if err != nil {
		return nil, err
	}
	return &goFile{path: name, text: []byte(text), fset: fset, ast: file}, nil
}

func (f *goFile) dir() string  { return path.Dir(f.path) }
func (f *goFile) base() string { return path.Base(f.path) }
func (f *goFile) isTest() bool { return strings.HasSuffix(f.path, "_test.go") }

// line returns the line of a position in the file.
func (f *goFile) line(p token.Pos) int { return f.fset.Position(p).Line }

// imports returns the import paths of the file.
func (f *goFile) imports() []string {
	var paths []string
	for _, spec := range f.ast.Imports {
		if p, err := strconv.Unquote(spec.Path.Value); err == nil {
			paths = append(paths, p)
		}
	}
	return paths
}

// treeFiles returns the files of the repository that end in suffix, sorted,
// with slashes. It opens every folder by itself: the cache of test results keys
// on what a test opens, so an answer that came from "go list" would be stale.
func treeFiles(t *testing.T, suffix string) []string {
	t.Helper()
	var files []string
	err := filepath.WalkDir(".", func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		hidden := strings.HasPrefix(d.Name(), ".") && name != "."
		if d.IsDir() && (hidden || d.Name() == "bin" || d.Name() == "testdata") {
			return fs.SkipDir
		}
		if !d.IsDir() && strings.HasSuffix(name, suffix) {
			files = append(files, filepath.ToSlash(name))
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(files)
	return files
}

// goTree parses every Go file of the repository.
func goTree(t *testing.T) []*goFile {
	t.Helper()
	var files []*goFile
	for _, name := range treeFiles(t, ".go") {
		f, err := parseGo(name, readText(t, name))
		if err != nil {
			t.Fatal(err)
		}
		files = append(files, f)
	}
	return files
}

// readText returns the content of a file of the repository.
func readText(t *testing.T, name string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.FromSlash(name))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}
