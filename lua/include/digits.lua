-- digits: a whole number as text; `..` and tostring would lose digits past the 14th.
local function digits(number)
  return string.format('%.0f', number)
end
