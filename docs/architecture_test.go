// Package docs holds the pages; its tests compare them with the code.
package docs

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
)

const module = "github.com/usher-agent/usher/"

// What a package may have without a reason in the page.
const (
	maxLines = 2500 // of files that are no tests
	maxNames = 60   // exported types, functions, variables and constants
)

// parsed is a file that is no test.
type parsed struct {
	*ast.File
	dir   string // of its package, from the root
	lines int
}

// source returns every Go file of the repository that is no test.
func source(t *testing.T) []parsed {
	t.Helper()
	files, err := parsedOnce()
	require.NoError(t, err)
	require.NotEmpty(t, files)
	return files
}

// parsedOnce reads the files for all tests: with the race detector that takes seconds.
var parsedOnce = sync.OnceValues(func() (files []parsed, err error) {
	err = walk(func(path, text string) error {
		if strings.HasSuffix(path, "_test.go") {
			return nil
		}
		f, err := parser.ParseFile(token.NewFileSet(), path, text, parser.ParseComments|parser.SkipObjectResolution)
		files = append(files, parsed{File: f, dir: filepath.Dir(path), lines: strings.Count(text, "\n")})
		return err
	})
	return files, err
})

// walk calls do with the path, from the root, and the text of every Go file of the repository.
func walk(do func(path, text string) error) error {
	root := os.DirFS("..")
	return fs.WalkDir(root, ".", func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && (d.Name() == "testdata" || strings.HasPrefix(d.Name(), ".") && path != ".") {
			return fs.SkipDir
		}
		if !strings.HasSuffix(path, ".go") {
			return nil
		}
		b, err := fs.ReadFile(root, path)
		if err != nil {
			return err
		}
		return do(path, string(b))
	})
}

func (p parsed) imports(t *testing.T) []string {
	t.Helper()
	var names []string
	for _, spec := range p.Imports {
		name, err := strconv.Unquote(spec.Path.Value)
		require.NoError(t, err)
		names = append(names, name)
	}
	return names
}

// exported counts the top-level names that other packages see.
func (p parsed) exported() (n int) {
	for _, decl := range p.Decls {
		switch decl := decl.(type) {
		case *ast.FuncDecl:
			if decl.Recv == nil && decl.Name.IsExported() {
				n++
			}
		case *ast.GenDecl:
			for _, spec := range decl.Specs {
				switch spec := spec.(type) {
				case *ast.TypeSpec:
					if spec.Name.IsExported() {
						n++
					}
				case *ast.ValueSpec:
					for _, name := range spec.Names {
						if name.IsExported() {
							n++
						}
					}
				}
			}
		}
	}
	return n
}

// table returns the rows of the table under a heading of architecture.md, and
// checks how many cells each has.
func table(t *testing.T, heading string, cells int) [][]string {
	t.Helper()
	b, err := os.ReadFile("architecture.md")
	require.NoError(t, err)
	_, rest, found := strings.Cut(string(b), "\n"+heading+"\n")
	require.True(t, found, "architecture.md has no heading %q", heading)
	var rows [][]string
	for line := range strings.Lines(rest) {
		line = strings.TrimSpace(line)
		inner, is := strings.CutPrefix(line, "| ")
		if !is {
			if strings.HasPrefix(line, "#") {
				break
			}
			continue
		}
		row := strings.Split(strings.TrimSuffix(inner, " |"), " | ")
		require.Len(t, row, cells, "architecture.md: %s", line)
		rows = append(rows, row)
	}
	require.Greater(t, len(rows), 1, "architecture.md has no table under %q", heading)
	return rows[1:]
}

// arrows are what may lead from one name to others, with the reason of each.
type arrows map[string]map[string]string

// read reads rows whose first cell is a name and whose last says where its
// arrows lead: "`a`, `b` (reason of both), `c` (another)", or "none".
func read(rows [][]string) (arrows, error) {
	stated := arrows{}
	for _, row := range rows {
		from, err := name(row[0])
		if err != nil {
			return nil, err
		}
		if stated[from] != nil {
			return nil, fmt.Errorf("%s has two rows", from)
		}
		if stated[from], err = reasons(row[len(row)-1]); err != nil {
			return nil, fmt.Errorf("%s: %w", from, err)
		}
	}
	return stated, nil
}

var (
	quoted = regexp.MustCompile("^`([^` ]+)`$")
	group  = regexp.MustCompile("^(`[^` ]+`(?:, `[^` ]+`)*) \\(([^()]*[^() ][^()]*)\\)(?:, |$)")
)

func name(cell string) (string, error) {
	m := quoted.FindStringSubmatch(cell)
	if m == nil {
		return "", fmt.Errorf("%q is no name between backquotes", cell)
	}
	return m[1], nil
}

func reasons(cell string) (map[string]string, error) {
	found := map[string]string{}
	if cell == "none" {
		return found, nil
	}
	for cell != "" {
		m := group.FindStringSubmatch(cell)
		if m == nil {
			return nil, fmt.Errorf("%q is no list of names with its reason in parentheses", cell)
		}
		for _, to := range strings.Split(m[1], ", ") {
			to = strings.Trim(to, "`")
			if found[to] != "" {
				return nil, fmt.Errorf("%s is there twice", to)
			}
			found[to] = m[2]
		}
		cell = cell[len(m[0]):]
	}
	return found, nil
}

// compare returns what is in the code and not in the page, and the other way round.
func compare(stated arrows, found map[string]map[string]bool) (faults []string) {
	for from, names := range found {
		if stated[from] == nil {
			faults = append(faults, from+" has no row")
			continue
		}
		for to := range names {
			if stated[from][to] == "" {
				faults = append(faults, from+" → "+to+" is new: name it in the row of "+from+", with its reason")
			}
		}
	}
	for from, names := range stated {
		if found[from] == nil {
			faults = append(faults, from+" has a row and is gone")
			continue
		}
		for to := range names {
			if !found[from][to] {
				faults = append(faults, from+" → "+to+" is stale: take it out of the row of "+from)
			}
		}
	}
	slices.Sort(faults)
	return faults
}

func agree(t *testing.T, heading string, faults []string) {
	t.Helper()
	if len(faults) > 0 {
		t.Errorf("docs/architecture.md, %s:\n%s", heading, strings.Join(faults, "\n"))
	}
}

func add(found map[string]map[string]bool, from, to string) {
	if found[from] == nil {
		found[from] = map[string]bool{}
	}
	if to != "" {
		found[from][to] = true
	}
}

func TestArrowsBetweenPackages(t *testing.T) {
	stated, err := read(table(t, "## Packages", 3))
	require.NoError(t, err)
	found := map[string]map[string]bool{}
	for _, f := range source(t) {
		add(found, f.dir, "")
		for _, path := range f.imports(t) {
			if own, is := strings.CutPrefix(path, module); is {
				add(found, f.dir, own)
			}
		}
	}
	agree(t, "Packages", compare(stated, found))
}

// Every library has its row; of the standard library only what the page names.
func TestLibrariesStayInTheirPackages(t *testing.T) {
	stated, err := read(table(t, "### Libraries", 2))
	require.NoError(t, err)
	found := map[string]map[string]bool{}
	for _, f := range source(t) {
		for _, path := range f.imports(t) {
			if lib := library(stated, path); lib != "" {
				add(found, lib, f.dir)
			}
		}
	}
	agree(t, "Libraries", compare(stated, found))
}

// library returns the row that an import belongs to: the most exact one, or its
// own path if it has none and should.
func library(stated arrows, path string) (lib string) {
	for row := range stated {
		if (path == row || strings.HasPrefix(path, row+"/")) && len(row) > len(lib) {
			lib = row
		}
	}
	if first, _, _ := strings.Cut(path, "/"); lib == "" && strings.Contains(first, ".") && !strings.HasPrefix(path, module) {
		return path
	}
	return lib
}

// size is how large a package is. Zero in a stated one: within the limit.
type size struct{ lines, names int }

func readSizes(rows [][]string) (map[string]size, error) {
	stated := map[string]size{}
	for _, row := range rows {
		pkg, err := name(row[0])
		if err != nil {
			return nil, err
		}
		var s size
		for i, to := range []*int{&s.lines, &s.names} {
			if cell := row[1+i]; cell != "–" {
				if *to, err = strconv.Atoi(strings.ReplaceAll(cell, ",", "")); err != nil {
					return nil, fmt.Errorf("%s: %w", pkg, err)
				}
			}
		}
		if _, twice := stated[pkg]; twice || strings.TrimSpace(row[3]) == "" {
			return nil, fmt.Errorf("%s has two rows, or no reason", pkg)
		}
		stated[pkg] = s
	}
	return stated, nil
}

// compareSizes wants a row for what is too large. A row says the number of names
// and, in full hundreds, that of lines: a package that grows has to explain
// itself anew, and one that shrinks loses its row.
func compareSizes(stated, found map[string]size) (faults []string) {
	for pkg := range stated {
		if _, ok := found[pkg]; !ok {
			faults = append(faults, pkg+" has a row and is gone")
		}
	}
	for pkg, is := range found {
		var want size
		if is.lines > maxLines {
			want.lines = (is.lines + 99) / 100 * 100
		}
		if is.names > maxNames {
			want.names = is.names
		}
		if got := stated[pkg]; got != want {
			faults = append(faults, fmt.Sprintf("%s has %d lines and %d exported names: its row says %s, should say %s", pkg, is.lines, is.names, got, want))
		}
	}
	slices.Sort(faults)
	return faults
}

func (s size) String() string {
	if s == (size{}) {
		return "nothing (no row)"
	}
	cell := func(n int) string {
		if n == 0 {
			return "–"
		}
		return strconv.Itoa(n)
	}
	return cell(s.lines) + " | " + cell(s.names)
}

func TestPackagesAreNotTooLarge(t *testing.T) {
	stated, err := readSizes(table(t, "### Large packages", 4))
	require.NoError(t, err)
	found := map[string]size{}
	for _, f := range source(t) {
		s := found[f.dir]
		if !ast.IsGenerated(f.File) {
			s.lines, s.names = s.lines+f.lines, s.names+f.exported()
		}
		found[f.dir] = s
	}
	agree(t, "Large packages", compareSizes(stated, found))
}

func TestTheCoreUsesTheStandardLibraryOnly(t *testing.T) {
	for _, f := range source(t) {
		for _, path := range f.imports(t) {
			if f.dir == "provision" {
				require.NotContains(t, strings.SplitN(path, "/", 2)[0], ".", "provision imports %s", path)
			}
		}
	}
}

// A sleep is no synchronisation. Under testing/synctest it only moves the
// bubble's clock, so test files that import that may have it.
func TestNobodySleeps(t *testing.T) {
	const sleep = "time" + ".Sleep("
	require.NoError(t, walk(func(path, text string) error {
		if strings.Contains(text, sleep) {
			require.True(t, strings.HasSuffix(path, "_test.go") && strings.Contains(text, `"testing/synctest"`), "%s sleeps", path)
		}
		return nil
	}))
}

// The checks find what they are for.
func TestFaultsAreFound(t *testing.T) {
	row := func(from, to string) [][]string { return [][]string{{"`" + from + "`", to}} }
	for _, c := range []struct{ name, cell, want string }{
		{"as stated", "`b`, `c` (they count), `d/e` (its clock, of `time`)", ""},
		{"new", "`b`, `c` (they count)", "a → d/e is new: name it in the row of a, with its reason"},
		{"stale", "`b`, `c`, `d/e`, `f` (they count)", "a → f is stale: take it out of the row of a"},
		{"no reason", "`b`, `c`, `d/e`", "no list of names with its reason"},
		{"last without a reason", "`b`, `c` (they count), `d/e`", "no list of names with its reason"},
		{"empty reason", "`b`, `c`, `d/e` ( )", "no list of names with its reason"},
		{"twice", "`b`, `b` (they count)", "b is there twice"},
		{"no name", "all (it wires)", "no list of names with its reason"},
	} {
		t.Run(c.name, func(t *testing.T) {
			var faults []string
			stated, err := read(row("a", c.cell))
			if err != nil {
				faults = append(faults, err.Error())
			} else {
				faults = compare(stated, map[string]map[string]bool{"a": {"b": true, "c": true, "d/e": true}})
			}
			if c.want == "" {
				require.Empty(t, faults)
				return
			}
			require.Len(t, faults, 1)
			require.Contains(t, faults[0], c.want)
		})
	}
	t.Run("packages", func(t *testing.T) {
		stated, err := read(row("gone", "none"))
		require.NoError(t, err)
		require.Equal(t, []string{"a has no row", "gone has a row and is gone"}, compare(stated, map[string]map[string]bool{"a": {}}))
		_, err = read(append(row("a", "none"), row("a", "none")...))
		require.ErrorContains(t, err, "two rows")
	})
	t.Run("libraries", func(t *testing.T) {
		stated := arrows{"net/http": {}, "example.org/x": {}, "example.org/x/deep": {}}
		for path, want := range map[string]string{
			"net/http": "net/http", "net/http/pprof": "net/http", "net": "", "example.org/x/v2/y": "example.org/x", "example.org/x/deep/er": "example.org/x/deep",
			"example.org/xyz": "example.org/xyz", module + "config": "",
		} {
			require.Equal(t, want, library(stated, path), path)
		}
	})
	t.Run("sizes", func(t *testing.T) {
		found := map[string]size{"a": {2501, 10}, "b": {maxLines, maxNames}, "c": {100, 61}}
		rows := [][]string{{"`a`", "2,600", "–", "long"}, {"`c`", "–", "61", "many"}}
		stated, err := readSizes(rows)
		require.NoError(t, err)
		require.Empty(t, compareSizes(stated, found))
		require.Equal(t, []string{
			"a has 2601 lines and 10 exported names: its row says 2600 | –, should say 2700 | –",
			"b has 2501 lines and 60 exported names: its row says nothing (no row), should say 2600 | –",
			"c has 100 lines and 60 exported names: its row says – | 61, should say nothing (no row)",
		}, compareSizes(stated, map[string]size{"a": {2601, 10}, "b": {2501, 60}, "c": {100, 60}}))
		require.Equal(t, []string{"c has a row and is gone"}, compareSizes(stated, map[string]size{"a": {2600, 0}}))
		_, err = readSizes([][]string{{"`a`", "2,600", "–", " "}})
		require.ErrorContains(t, err, "no reason")
	})
}

var (
	namedPlace = regexp.MustCompile("`([A-Za-z0-9_.]+)`(?: in `([a-z0-9_/]+\\.go)`)?")
	goFile     = regexp.MustCompile("`([a-z0-9_/]+\\.go)`")
)

// The page says where things are decided: every file and name in that table must be there.
func TestWhereItIsDecided(t *testing.T) {
	declared := map[string]map[string]bool{} // by path
	for _, row := range table(t, "## Where is it decided?", 3) {
		files := goFile.FindAllStringSubmatch(row[1]+row[2], -1)
		require.NotEmpty(t, files, "%s: no file", row[0])
		for _, file := range files {
			if declared[file[1]] == nil {
				f, err := parser.ParseFile(token.NewFileSet(), filepath.Join("..", file[1]), nil, parser.SkipObjectResolution)
				require.NoError(t, err, "%s: no such file", row[0])
				declared[file[1]] = declarations(f)
			}
		}
		home := goFile.FindStringSubmatch(row[1])
		require.NotNil(t, home, "%s: no file in the second column", row[0])
		names := 0
		for _, m := range namedPlace.FindAllStringSubmatch(row[2], -1) {
			file := home[1]
			if m[2] != "" {
				file = m[2]
			}
			if strings.HasSuffix(m[1], ".go") {
				continue
			}
			names++
			require.True(t, declared[file][m[1]], "%s: %s has no %s", row[0], file, m[1])
		}
		require.Positive(t, names, "%s: no name", row[0])
	}
}

// declarations returns the top-level names of a file, methods as Type.Method.
func declarations(f *ast.File) map[string]bool {
	names := map[string]bool{}
	for _, decl := range f.Decls {
		switch decl := decl.(type) {
		case *ast.FuncDecl:
			name := decl.Name.Name
			if decl.Recv != nil {
				of := decl.Recv.List[0].Type
				if star, ok := of.(*ast.StarExpr); ok {
					of = star.X
				}
				if id, ok := of.(*ast.Ident); ok {
					name = id.Name + "." + name
				}
			}
			names[name] = true
		case *ast.GenDecl:
			for _, spec := range decl.Specs {
				switch spec := spec.(type) {
				case *ast.TypeSpec:
					names[spec.Name.Name] = true
				case *ast.ValueSpec:
					for _, id := range spec.Names {
						names[id.Name] = true
					}
				}
			}
		}
	}
	return names
}
