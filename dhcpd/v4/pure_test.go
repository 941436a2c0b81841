package v4

import (
	"go/ast"
	"go/parser"
	"go/token"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// A decision is a function of its arguments: nothing here, nor in what clients are
// told by, looks at a clock, a socket or a disk, and nothing is shared between goroutines.
func TestPackageIsPure(t *testing.T) {
	forbidden := map[string]bool{"log": true, "log/slog": true, "net": true, "os": true, "sync": true, "sync/atomic": true, "context": true, "runtime": true, "math/rand/v2": true}
	clock := map[string]bool{"Now": true, "Since": true, "Until": true, "After": true, "AfterFunc": true, "Sleep": true, "Tick": true, "NewTimer": true, "NewTicker": true}
	own, err := filepath.Glob("*.go")
	require.NoError(t, err)
	told, err := filepath.Glob("../options/*.go")
	require.NoError(t, err)
	require.NotEmpty(t, told)
	seen := 0
	for _, name := range append(own, told...) {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		seen++
		fset := token.NewFileSet()
		f, err := parser.ParseFile(fset, name, nil, 0)
		require.NoError(t, err)
		for _, im := range f.Imports {
			path, err := strconv.Unquote(im.Path.Value)
			require.NoError(t, err)
			require.False(t, forbidden[path], "%s imports %s", name, path)
			require.True(t, im.Name == nil, "%s: another name for %s would hide what is called", name, path)
		}
		ast.Inspect(f, func(n ast.Node) bool {
			if s, ok := n.(*ast.SelectorExpr); ok {
				if x, ok := s.X.(*ast.Ident); ok && x.Name == "time" {
					require.False(t, clock[s.Sel.Name], "%s: time.%s", fset.Position(s.Pos()), s.Sel.Name)
				}
			}
			if s, ok := n.(*ast.GoStmt); ok {
				t.Fatalf("%s: a goroutine", fset.Position(s.Pos()))
			}
			return true
		})
	}
	require.Positive(t, seen)
}
