-- plain: a stored text that an answer names although it may be damage: cut to 32 characters, with '?' for each that is
-- no letter, digit, dot, dash or underscore.
local function plain(text)
  return (string.gsub(string.sub(text, 1, 32), '[^%w._-]', '?'))
end
