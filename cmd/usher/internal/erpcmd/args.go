package erpcmd

import (
	"fmt"
	"io"
	"net/url"
	"strings"

	"github.com/usher-agent/usher/cmd/usher/internal/cli"
	"github.com/usher-agent/usher/userside"
)

// readArgs reads NAME=VALUE words for an action.
func readArgs(a userside.Action, words []string, stdin io.Reader) (url.Values, error) {
	out := url.Values{}
	for _, w := range words {
		name, text, ok := strings.Cut(w, "=")
		if !ok || name == "" {
			return nil, cli.Usage(fmt.Errorf("argument %q: want NAME=VALUE", shorten(clean(name), 40)))
		}
		name = strings.ReplaceAll(name, "-", "_")
		if plain, isFile := strings.CutSuffix(name, "_file"); isFile && secretParam(name) {
			secret, err := readSecret(name, text, stdin)
			if err != nil {
				return nil, err
			}
			name, text = plain, secret
		}
		p, ok := a.Param(name)
		if !ok {
			return nil, cli.Usage(fmt.Errorf("%s has no parameter %q; want %s", commandOf(a), shorten(clean(name), 40), paramNames(a)))
		}
		if out.Has(p.Name) {
			return nil, cli.Usage(fmt.Errorf("parameter %s is given twice", p.Name))
		}
		value, err := wireText(*p, text)
		if err != nil {
			if secretParam(p.Name) {
				text = redactedText
			}
			return nil, cli.Usage(fmt.Errorf("parameter %s: %q: %w", p.Name, text, err))
		}
		out.Set(p.Name, value)
	}
	return out, checkTogether(a, out, func(p userside.Param) string { return p.Name })
}

func paramNames(a userside.Action) string {
	if len(a.Params) == 0 {
		return "none"
	}
	var names []string
	for _, p := range a.Params {
		names = append(names, p.Name)
	}
	return strings.Join(names, ", ")
}
