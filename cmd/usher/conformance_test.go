package main

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// The conformance page names a test for every requirement, or says that it
// deviates or is open; the tests and their cases exist.
func TestConformancePageNamesTestsThatExist(t *testing.T) {
	t.Parallel()
	root := filepath.Join("..", "..")
	files := map[string]string{} // test function: the text of its file
	require.NoError(t, filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || !strings.HasSuffix(path, "_test.go") {
			return err
		}
		b, err := os.ReadFile(path)
		text := string(b)
		for line := range strings.Lines(text) { // an expression takes long with the race detector
			if rest, is := strings.CutPrefix(line, "func Test"); is {
				name, _, _ := strings.Cut(rest, "(")
				files["Test"+name] += text
			}
		}
		return err
	}))
	page, err := os.ReadFile(filepath.Join(root, "docs", "dhcp-conformance.md"))
	require.NoError(t, err)
	named := regexp.MustCompile("`(Test\\w+)(?:/([^`]+))?`")
	rows := 0
	for line := range strings.Lines(string(page)) {
		for _, m := range named.FindAllStringSubmatch(line, -1) {
			text, ok := files[m[1]]
			require.True(t, ok, "%s does not exist: %s", m[1], line)
			if m[2] != "" {
				require.Contains(t, text, strconv.Quote(m[2]), "%s has no case %q", m[1], m[2])
			}
		}
		cells := strings.Split(strings.Trim(strings.TrimSpace(line), "|"), "|")
		if !strings.HasPrefix(line, "|") || strings.HasPrefix(line, "|--") || strings.TrimSpace(cells[len(cells)-1]) == "shown by" {
			continue
		}
		rows++
		last := cells[len(cells)-1]
		require.True(t, named.MatchString(last) || strings.Contains(last, "**deviation**") || strings.Contains(last, "**open**"),
			"neither a test nor a deviation nor open: %s", line)
	}
	require.Greater(t, rows, 60)
}
