package userside

import (
	"bytes"
	"context"
)

// maxRaw bounds what a Raw keeps.
const maxRaw = 64 << 20

// Raw is the text of one answer as it came, unpacked. It may hold personal data.
type Raw struct {
	Status    int    // HTTP status
	Text      []byte // up to 64 MiB
	Truncated bool   // there was more
}

func (r *Raw) add(p []byte) {
	room := maxRaw - len(r.Text)
	if len(p) > room {
		p = p[:room]
		r.Truncated = true
	}
	r.Text = append(r.Text, p...)
}

type rawKey struct{}

// WithRaw makes every call under the context it returns leave its answer in
// raw: each attempt replaces what the one before left. So the text behind any
// typed answer can be had. One raw serves one call at a time.
func WithRaw(ctx context.Context, raw *Raw) context.Context {
	return context.WithValue(ctx, rawKey{}, raw)
}

func rawFrom(ctx context.Context) *Raw {
	raw, _ := ctx.Value(rawKey{}).(*Raw)
	return raw
}

var byteOrderMark = []byte{0xef, 0xbb, 0xbf}

// document returns the text without byte order mark and without the key, which a
// server may have echoed.
func (r *Raw) document(red redactor) []byte {
	return red.key.ReplaceAll(bytes.TrimPrefix(r.Text, byteOrderMark), []byte(redacted))
}
