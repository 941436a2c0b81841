package cli

import (
	"io"
	"log/slog"
	"strings"
)

// NewLogger writes text to a terminal and JSON elsewhere, unless format says
// text or json.
func NewLogger(w io.Writer, format string, level slog.Leveler) *slog.Logger {
	opts := &slog.HandlerOptions{Level: level}
	if format == "text" || format == "auto" && IsTerminal(w) {
		return slog.New(slog.NewTextHandler(quoting{w}, opts))
	}
	return slog.New(slog.NewJSONHandler(escaping{Beneath(w)}, opts))
}

// escaping writes JSON in which what does not print is escaped, wherever it goes: a log is
// read on terminals, too, and the journal shows a line that does not print as a blob.
type escaping struct{ w io.Writer }

// Write implements io.Writer. The handler writes one whole line a call.
func (e escaping) Write(p []byte) (int, error) {
	if _, err := io.WriteString(e.w, asciiEscapes(string(p))); err != nil {
		return 0, err
	}
	return len(p), nil
}

// quoting writes text of slog's, which quotes whatever does not print but for DEL.
type quoting struct{ w io.Writer }

// Write implements io.Writer.
func (t quoting) Write(p []byte) (int, error) {
	if _, err := io.WriteString(t.w, strings.ReplaceAll(string(p), "\x7f", `\x7f`)); err != nil {
		return 0, err
	}
	return len(p), nil
}

// LogLevel reads a level of the configuration; config has checked it.
func LogLevel(s string) slog.Level {
	var l slog.Level
	_ = l.UnmarshalText([]byte(s))
	return l
}
