// SPDX-License-Identifier: Apache-2.0

package config_test

import (
	"os"
	"regexp"
	"strings"
	"testing"

	"sluice/config"
)

// TestExamplesOfTheDocs: each example in the docs is a file that can be read, or a part of
// one that is about one thing.
func TestExamplesOfTheDocs(t *testing.T) {
	text, err := os.ReadFile("../docs/configuration.md")
	if err != nil {
		t.Fatal(err)
	}
	blocks := regexp.MustCompile("(?s)\n```yaml\n(.*?)```").FindAllStringSubmatch(string(text), -1)
	if len(blocks) < 10 {
		t.Fatalf("%d examples", len(blocks))
	}
	for _, b := range blocks {
		file := b[1]
		if !strings.Contains(file, "namespaces:") && strings.Contains(file, "namespace: shop") {
			file += "namespaces: [{name: shop}]\n"
		}
		if !strings.Contains(file, "networks:") {
			file += "networks: [{name: some, namespace: shop, subnets: [198.51.100.0/24]}]\n"
		}
		if _, err := config.Parse([]byte(file)); err != nil {
			t.Errorf("%v, in\n%s", err, file)
		}
	}
}
