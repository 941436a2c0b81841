//go:build !goexperiment.jsonv2

package userside

import "io"

func moreDecoders() map[string]func(io.Reader) ([]BindingRow, error) { return nil }
